"""Training from start or checkpoint to the end, interruptible at any moment.

One run is a population of one: members that differ in their seed and hparams alone train together,
each of them in a workdir of its own that does not tell whether it had company.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.data.order import Order
from ibgan_jax.errors import UserError
from ibgan_jax.training import generated, reporting
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.member import Log, Member
from ibgan_jax.training.population import SAVES_AT_ONCE, Population, Programs
from ibgan_jax.training.progress import Progress
from ibgan_jax.training.run import build
from ibgan_jax.training.state import TrainState
from ibgan_jax.training.workdir import Workdir, environment

if TYPE_CHECKING:
    from ml_collections import ConfigDict


class InterruptedRunError(Exception):
    """A signal asked the run to stop; its state is saved."""


def train(config: ConfigDict, workdir: Workdir, log: Log = print) -> None:
    """Trains to `config.train.steps`, taking up a run that `workdir` already holds, and reports.

    Raises:
      UserError: anything the user can put right, before any work starts.
      DivergedError: a loss is not finite; the last good checkpoint stays.
      InterruptedRunError: after SIGINT or SIGTERM, with the state saved.
    """
    if any(config.population.values()):
        raise UserError("this config names a population: study.train trains all of its members")
    train_together([(config, workdir)], log)


def train_together(runs: Sequence[tuple[ConfigDict, Workdir]], log: Log = print) -> None:
    """As `train`, for runs whose configs differ in seed and hparams alone: a population.

    They train as one program, in groups where not all fit in memory. A member that diverges is left
    at its last good checkpoint while the others go on.

    Raises:
      UserError, InterruptedRunError: as `train`.
      DivergedError: every member diverged.
      ValueError: the configs differ in more.
    """
    for config, workdir in runs:
        configs.check(config)
        if not configs.same_program(config, runs[0][0]):
            raise ValueError(f"{workdir.path} cannot train together with {runs[0][1].path}")
        recorded = workdir.recorded()  # a damaged record is not written over
        if Checkpoints(workdir.checkpoints).steps():
            recorded = recorded or workdir.must_exist()
            configs.check_same(recorded["config"], config, workdir.path)
        elif workdir.weights.exists():
            raise UserError(
                f"{workdir.path} holds {workdir.weights.name} alone, without the optimizers' "
                "state: it can be scored and drawn, not trained on; choose another --workdir"
            )
    first = runs[0][0]
    distributed.check_precision(first.train.precision)
    if first.fid.every:
        generated.check(["fid"], [first.dataset.name], Path(first.fid.classifier).expanduser())
    with ExitStack() as locks:
        for _, workdir in runs if distributed.is_main_process() else ():
            workdir.create()
            locks.enter_context(workdir.locked())
        with runs[0][1].explained():
            _train_all(runs, log)


def _train_all(runs: Sequence[tuple[ConfigDict, Workdir]], log: Log) -> None:
    run = build(runs[0][0], log, len(runs))
    for config, workdir in runs:
        workdir.write_json(workdir.config, {"config": config.to_dict(), **environment()})
    distributed.wait_for_all("configs are written")
    members = [Member(run.of(config), workdir, log) for config, workdir in runs]
    programs = Programs(run)
    size = programs.fitting(len(members), log)
    for some in (members[at : at + size] for at in range(0, len(members), size)):
        _train(some, programs, log)
        for member in some:
            if member.diverged is None:
                reporting.finish(member.run, member.workdir, log)
    if all(member.diverged for member in members):
        raise members[-1].diverged


def _train(members: Sequence[Member], programs: Programs, log: Log) -> None:
    """Trains members that fit in memory together to their last step."""
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        for member in members:
            stack.callback(member.close)
        for group, states in _abreast(members):
            _Training(group, states, programs, stop, log).run_to_end()


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question; the second one acts at once."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received:
            signal.signal(number, signal.default_int_handler)
            raise KeyboardInterrupt
        received.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {kind: signal.signal(kind, note) for kind in kinds}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _abreast(members: Sequence[Member]) -> list[tuple[list[Member], list[TrainState]]]:
    """Members that stand at the same step, with their states.

    One that is a single checkpoint ahead of others, as a kill between their saves leaves it, goes
    back to theirs, if that is no further than checkpoints usually are apart.
    """
    states = {member: member.resume() for member in members}
    steps = {member.step for member in members}
    train = members[0].run.config.train
    for member in members:
        lost = member.step - member.previous
        near = 0 < lost <= min(train.checkpoint_every, train.evaluate_every)
        if near and member.previous in steps:
            states[member] = member.go_back()
    groups = []
    for step in dict.fromkeys(member.step for member in members):
        group = [member for member in members if member.step == step]
        groups.append((group, [states[member] for member in group]))
    return groups


class _Training:
    """One process's way from the first to the last step of members that stand at the same one."""

    def __init__(
        self,
        members: Sequence[Member],
        states: list[TrainState],
        programs: Programs,
        stop: Callable[[], bool],
        log: Log,
    ) -> None:
        self._members, self._states, self._programs = members, states, programs
        self._stop, self._log = stop, log
        self._any = distributed.AnyProcess()
        self._first = members[0].step
        self._run = members[0].run
        self._said: set[Member] = set()

    def run_to_end(self) -> None:
        first, last = self._first, self._run.config.train.steps
        for member in self._members:
            if first:
                self._log(f"resuming {member.workdir.path} at step {first}")
            if first >= last:
                self._log(f"{member.workdir.path} has {first} of {last} steps: nothing to train")
        if first >= last:
            return
        for member in self._members:
            member.open()
        program = self._programs.of(len(self._members), first)
        hparams = [member.run.hparams for member in self._members]
        self._population = Population(program, self._states, hparams)
        figures = self._run.model.headline
        with Progress(first, last, self._log, figures) as self._progress:
            for step, batches in enumerate(self._batches(program.steps), 1):
                self._population.advance(batches)
                if not self._at(first + step * program.steps):
                    return
        # A signal that came while the last step was scored: what is left is the report.
        if self._any(self._stop()) and self._alive:
            self._interrupt(last)

    def _batches(self, steps: int) -> Iterator[Any]:
        """What the data set yields for members fed here; those of one seed share their order."""
        run, train = self._run, self._run.config.train
        images = train.batch_size * run.model.batches
        seeds = [self._members[place].run.config.seed for place in self._population.fed]
        orders = {seed: Order(run.dataset.size, seed) for seed in seeds}
        chosen, part = [orders[seed] for seed in seeds], self._population.batch_part
        return run.dataset.batches(chosen, self._first, train.steps, steps, images, part)

    @property
    def _alive(self) -> list[tuple[int, Member]]:
        return [(i, member) for i, member in enumerate(self._members) if not member.diverged]

    def _at(self, step: int) -> bool:
        """Does what is due at `step`: logging, evaluation, checkpoint, stop. Whether to go on."""
        train = self._run.config.train
        last, stopping = step == train.steps, self._any(self._stop())
        self._progress.at(step)
        logged = last or step % train.log_every == 0
        scored = last or step % train.evaluate_every == 0
        saved = scored or stopping or step % train.checkpoint_every == 0
        if not (logged or saved):
            return True
        for member, metrics in zip(self._members, self._population.fetch(), strict=True):
            member.add(step, metrics)
        self._say_diverged()
        if logged and self._alive:
            self._write(step)
        saving: list[Member] = []
        for place, member in self._alive if saved else ():
            if len(saving) >= SAVES_AT_ONCE:
                saving[-SAVES_AT_ONCE].wait()
            member.save(step, self._population.state(place), scored)
            saving.append(member)
            if distributed.processes() > 1:
                member.wait()  # Orbax's processes meet at points that know no members
        self._say_diverged()
        if stopping and not last and self._alive:
            self._interrupt(step)
        return bool(self._alive)

    def _interrupt(self, step: int) -> NoReturn:
        for _, member in self._alive:
            member.wait()
        raise InterruptedRunError(f"stopped and saved at step {step}; the same command goes on")

    def _write(self, step: int) -> None:
        """Logs every member, and shows the mean over them."""
        means = [member.means() for _, member in self._alive]
        shown = {name: float(np.mean([mean[name] for mean in means])) for name in means[0]}
        self._progress.at(step, shown)
        for (_, member), mean in zip(self._alive, means, strict=True):
            member.log(step, mean, self._progress.rate)

    def _say_diverged(self) -> None:
        """Once for each member; alone it is the error that the run ends with."""
        for member in self._members:
            if member.diverged and member not in self._said and len(self._members) > 1:
                self._progress.log(f"{member.workdir.path}: {member.diverged}")
                self._said.add(member)
