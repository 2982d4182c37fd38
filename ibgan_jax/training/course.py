"""The way of members that train together from their first step to the last."""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import numpy as np

from ibgan_jax import distributed
from ibgan_jax.data.order import Order
from ibgan_jax.training import evaluation, timing
from ibgan_jax.training.deadline import GROUP, START, Deadline
from ibgan_jax.training.member import Log, Member
from ibgan_jax.training.population import SAVES_AT_ONCE, Population, Programs
from ibgan_jax.training.progress import Progress
from ibgan_jax.training.records import Records
from ibgan_jax.training.state import TrainState

Metrics = dict[str, np.ndarray]


class InterruptedRunError(Exception):
    """A signal asked the run to stop; its state is saved."""


class Course:
    """One process's way of members that stand at the same step.

    The thread that calls `run` dispatches steps and takes copies of states. All that is recorded
    is handed over to `Records`, which does it in order, on an accelerator beside the steps.
    """

    def __init__(
        self,
        members: Sequence[Member],
        states: list[TrainState],
        programs: Programs,
        stop: Callable[[], bool],
        deadline: Deadline,
        reported: int,
        log: Log,
    ) -> None:
        """`reported` members are scored and reported once the time is up."""
        self._members, self._states, self._programs = members, states, programs
        self._stop, self._deadline, self._reported, self._log = stop, deadline, reported, log
        self._timing = deadline.timing
        self._struck, self._late = distributed.AnyProcess(), distributed.AnyProcess()
        self._first = members[0].step
        self._run = members[0].run
        self._train = self._run.config.train
        self._said: set[Member] = set()
        self._saving: collections.deque[Member] = collections.deque()

    def run(self) -> None:
        """Trains to the last step.

        Raises:
          InterruptedRunError, TimeIsUpError: with the state saved.
        """
        first, last = self._first, self._train.steps
        for member in self._members:
            if first:
                self._log(f"resuming {member.workdir.path} at step {first}")
            if first >= last:
                self._log(f"{member.workdir.path} has {first} of {last} steps: nothing to train")
        if first >= last:
            return
        for member in self._members:
            member.open()
        with self._timing.phase(timing.COMPILING):
            program = self._programs.of(len(self._members), first)
        if self._deadline.reached():
            raise self._time_is_up(first)
        hparams = [member.run.hparams for member in self._members]
        self._population = Population(program, self._states, hparams)
        self._dispatch, self._together = program.steps, program.together
        self._timing.forget(timing.STEPS)  # of another program
        beside, figures = distributed.records_beside_steps(program.mesh), self._run.model.headline
        with (
            Progress(first, last, self._log, figures) as self._progress,
            Records(beside, len(self._members), self._timing) as self._records,
            closing(self._batches()) as batches,
        ):
            for step in range(first + program.steps, last + 1, program.steps):
                with self._timing.phase(timing.STEPS):
                    self._population.advance(next(batches))
                self._timing.end(START, GROUP)
                if not self._at(step):
                    return
        # A signal that came while the last step was scored: what is left is the report.
        if self._struck(self._stop()) and self._alive:
            self._interrupt(last)

    def _batches(self) -> Iterator[Any]:
        """What the data set yields for members fed here; those of one seed share their order."""
        run, train = self._run, self._train
        images = train.batch_size * run.model.batches
        seeds = [self._members[place].run.config.seed for place in self._population.fed]
        orders = {seed: Order(run.dataset.size, seed) for seed in seeds}
        chosen, part = [orders[seed] for seed in seeds], self._population.batch_part
        steps = (self._first, train.steps, self._dispatch)
        yield from run.dataset.batches(chosen, *steps, images, part)

    @property
    def _alive(self) -> list[int]:
        """The places of those that have not diverged, as far as that is known."""
        return [i for i, member in enumerate(self._members) if not member.diverged]

    def _due(self, step: int) -> tuple[bool, bool, bool]:
        """Whether `step` is logged, scored and saved, whatever else may happen."""
        train, last = self._train, step == self._train.steps
        logged = last or step % train.log_every == 0
        scored = last or step % train.evaluate_every == 0
        saved = last or (not train.light and (scored or step % train.checkpoint_every == 0))
        return logged, scored, saved

    def _at(self, step: int) -> bool:
        """Hands over what is due at `step`; stops if it must. Whether to go on."""
        last = step == self._train.steps
        struck = self._struck(self._stop())
        late = bool(self._deadline.minutes) and self._late(self._too_late(step))
        self._progress.at(step)
        logged, scored, saved = self._due(step)
        saved = saved or struck or late
        if not (logged or scored or saved):
            return True
        handed = time.monotonic() if self._records.beside else None
        taken = self._population.take()
        self._records.hand_over(partial(self._log_point, step, taken, logged, handed))
        places = self._alive if scored or saved else []
        for i in range(0, len(places), self._together):
            group = places[i : i + self._together]
            self._records.make_room(len(group))
            states = {self._members[place]: self._population.state(place) for place in group}
            keep = partial(self._keep, step, states, scored, saved)
            del states  # `keep` lets go of each as soon as it is done with
            self._records.hand_over(keep, len(group))
        if last or struck or late:
            self._records.drain()
        if (struck or late) and not last and self._alive:
            for place in self._alive:
                self._members[place].wait()
            if struck:
                self._interrupt(step)
            raise self._time_is_up(step)
        return bool(self._alive)

    def _too_late(self, step: int) -> bool:
        """Whether going on from `step` to the next dispatch would end after the limit.

        Never where the last step and all that follows it are likely to be in time: a run must not
        end a dispatch before its last one for the sake of margins.
        """
        # Of several processes, each knows the others' answers a dispatch later.
        ahead = self._dispatch * (1 if distributed.processes() == 1 else 2)
        left, last = self._deadline.left(), self._train.steps
        soon = self._pieces(step, min(step + ahead, last))
        if left >= sum(self._deadline.estimate(name, n) for name, n in soon.items()):
            return False
        whole = self._pieces(step, last)
        return left < sum(self._deadline.likely(name, n) for name, n in whole.items())

    def _pieces(self, step: int, end: int) -> dict[str, int]:
        """How many pieces of each kind come from `step` on if the time is up at `end`."""
        steps, alive = range(step, end + 1, self._dispatch), len(self._alive)
        due = [self._due(at) for at in steps]
        scored = alive * sum(score for _, score, _ in due) + self._records.copies
        saved = alive * sum(save for _, _, save in due) + self._records.copies
        return {
            timing.STEPS: len(steps) - 1,
            timing.SCORES: scored,
            timing.PICTURES: 0 if self._train.light else scored,
            timing.SAVES: saved + (0 if end == self._train.steps else alive),
            timing.REPORT: self._reported,
        }

    def _interrupt(self, step: int) -> None:
        for place in self._alive:
            self._members[place].wait()
        raise InterruptedRunError(f"stopped and saved at step {step}; the same command goes on")

    def _time_is_up(self, step: int) -> Exception:
        return self._deadline.error(f"time is up at step {step} of {self._train.steps}")

    # What follows is done by `Records`.

    def _log_point(
        self, step: int, taken: Callable[[], list[Metrics]], logged: bool, handed: float | None
    ) -> None:
        """Gives every member its metrics; logs them, and shows the mean over them."""
        for member, metrics in zip(self._members, taken(), strict=True):
            member.add(step, metrics)
        self._say_diverged()
        alive = [self._members[place] for place in self._alive]
        if not (logged and alive):
            return
        means = [member.means() for member in alive]
        shown = {name: float(np.mean([mean[name] for mean in means])) for name in means[0]}
        self._progress.at(step, shown, handed)
        for member, mean in zip(alive, means, strict=True):
            member.log(step, mean, self._progress.rate)

    def _keep(self, step: int, states: dict[Member, TrainState], scored: bool, saved: bool) -> None:
        """Scores and draws the members together, if it is their time, and saves each."""
        kept = {m: x for m, x in states.items() if not m.diverged and m.finite(step, x)}
        states.clear()
        best: Mapping[Member, float | None] = {}
        if scored and kept:
            best = self._evaluate(step, kept)
        for member in list(kept) if saved else ():
            with self._timing.phase(timing.SAVES):
                if len(self._saving) >= SAVES_AT_ONCE:
                    self._saving.popleft().wait()
                member.save(step, kept.pop(member), best.get(member))
                self._saving.append(member)
                if distributed.processes() > 1:
                    member.wait()  # Orbax's processes meet at points that know no members
        self._say_diverged()

    def _evaluate(self, step: int, states: dict[Member, TrainState]) -> dict[Member, float | None]:
        """Writes scores and pictures; the number by which checkpoints compare."""
        runs, variables = [m.run for m in states], [x.variables for x in states.values()]
        with self._timing.phase(timing.SCORES, len(states)):
            found = evaluation.score_members(runs, variables, step, self._log)
        for (member, state), (record, _) in zip(states.items(), found, strict=True):
            with self._timing.phase(timing.PICTURES):
                light = self._train.light
                pictures = {} if light else evaluation.progress_images(member.run, state)
                member.evaluated(step, record, pictures)
        return {member: best for member, (_, best) in zip(states, found, strict=True)}

    def _say_diverged(self) -> None:
        """Once for each member; alone it is the error that the run ends with."""
        for member in self._members:
            if member.diverged and member not in self._said and len(self._members) > 1:
                self._progress.log(f"{member.workdir.path}: {member.diverged}")
                self._said.add(member)
