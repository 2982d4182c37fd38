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
from typing import TYPE_CHECKING

from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.errors import UserError
from ibgan_jax.training import generated, pace, reporting, trained
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.course import Course, InterruptedRunError
from ibgan_jax.training.deadline import GROUP, START, Deadline, TimeIsUpError
from ibgan_jax.training.member import Log, Member
from ibgan_jax.training.population import Programs
from ibgan_jax.training.run import build
from ibgan_jax.training.state import TrainState
from ibgan_jax.training.timing import COMPILING, REPORT, Timing, accounting
from ibgan_jax.training.warming import warmed
from ibgan_jax.training.workdir import Workdir, environment

if TYPE_CHECKING:
    from ml_collections import ConfigDict

__all__ = ["InterruptedRunError", "TimeIsUpError", "train", "train_together"]


def train(
    config: ConfigDict, workdir: Workdir, log: Log = print, started: float | None = None
) -> None:
    """Trains to `config.train.steps`, taking up a run that `workdir` already holds, and reports.

    `train.max_minutes` counts from `started`, a moment of time.monotonic, by default now.

    Raises:
      UserError: anything the user can put right, before any work starts.
      DivergedError: a loss is not finite; the last good checkpoint stays.
      InterruptedRunError: after SIGINT or SIGTERM, with the state saved.
      TimeIsUpError: at the end of `train.max_minutes`, with the state saved, scored and reported.
    """
    if any(configs.varied(config).values()):
        raise UserError("this config names a population: study.train trains all of its members")
    timing = Timing(started)
    with accounting(timing, workdir, log):
        train_together([(config, workdir)], log, Deadline(config.train.max_minutes, timing))


def train_together(
    runs: Sequence[tuple[ConfigDict, Workdir]], log: Log = print, deadline: Deadline | None = None
) -> None:
    """As `train`, for runs whose configs differ in seed and hparams alone: a population.

    They train as one program, in groups where not all fit in memory, or where `population.at_once`
    says so. A member that diverges is left at its last good checkpoint while the others go on. By
    default the `deadline` is the first config's, counted from now.

    Raises:
      UserError, InterruptedRunError, TimeIsUpError: as `train`.
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
        refuse_weights(workdir)
    first = runs[0][0]
    distributed.check_precision(first.train.precision)
    if first.fid.every:
        generated.check(["fid"], [first.dataset.name], Path(first.fid.classifier).expanduser())
    deadline = deadline or Deadline(first.train.max_minutes, Timing())
    with ExitStack() as locks:
        for _, workdir in runs if distributed.is_main_process() else ():
            workdir.create()
            locks.enter_context(workdir.locked())
        with runs[0][1].explained():
            _train_all(runs, deadline, log)


def refuse_weights(workdir: Workdir) -> None:
    """Raises UserError for a run that came from an archive: it lacks what training needs."""
    if trained.only_weights(workdir):
        raise UserError(
            f"{workdir.path} holds {workdir.weights.name} alone, without the optimizers' "
            "state: it can be scored and drawn, not trained on; choose another --workdir"
        )


def _train_all(runs: Sequence[tuple[ConfigDict, Workdir]], deadline: Deadline, log: Log) -> None:
    deadline.timing.begin(START)
    run = build(runs[0][0], log, len(runs))
    for config, workdir in runs:
        workdir.write_json(workdir.config, {"config": config.to_dict(), **environment()})
    distributed.wait_for_all("configs are written")
    members = [Member(run.of(config), workdir, log) for config, workdir in runs]
    if deadline.reached():
        raise _left_over(members, deadline)
    programs = Programs(run)
    now, size = _grouped(members, programs, deadline, log)
    for at in range(0, len(now), size):
        group = now[at : at + size]
        starting = deadline.estimate(GROUP) + deadline.estimate(REPORT, len(group))
        if at and deadline.reached(starting):
            raise _left_over(members, deadline)
        _train_and_report(group, programs, deadline, log)
    if all(member.diverged for member in now):
        raise now[-1].diverged
    if len(now) < len(members):
        raise _left_over(members, deadline)


def _grouped(
    members: Sequence[Member], programs: Programs, deadline: Deadline, log: Log
) -> tuple[Sequence[Member], int]:
    """Those that train in this launch, and how many of them at a time."""
    run, newest = members[0].run, members[0].newest
    at_once = run.config.population[configs.AT_ONCE]
    most = min(len(members), at_once if at_once > 0 else len(members))
    with deadline.timing.phase(COMPILING):
        if any(member.newest < run.config.train.steps for member in members):
            with warmed(run, most, deadline.timing):
                programs.of(most, newest if most == 1 else 0)
        size = programs.fitting(most, log)
    if not distributed.records_beside_steps(run.mesh):  # else it is warmed
        deadline.learn_compiling()
    if at_once == -1 and len(members) > 1:
        members = members[: pace.chosen(members, programs, size, deadline, log)]
    return members, min(size, len(members))


def _left_over(members: Sequence[Member], deadline: Deadline) -> TimeIsUpError:
    last = members[0].run.config.train.steps
    done = sum(member.newest >= last for member in members)
    if len(members) == 1:
        return deadline.error(f"time is up at step {members[0].newest} of {last}")
    return deadline.error(f"time is up with {done} of {len(members)} members at step {last}")


def _train_and_report(
    members: Sequence[Member], programs: Programs, deadline: Deadline, log: Log
) -> None:
    """Trains members that fit in memory together, to their last step or until the time is up."""
    deadline.timing.begin(GROUP)
    late = None
    try:
        _train(members, programs, deadline, log)
    except TimeIsUpError as error:
        late = error
    for member in members:
        if member.diverged:
            continue
        # The main process knows: others may not see its newest files yet.
        if late and distributed.agreed(
            reporting.is_done(member.run, member.workdir, member.newest)
        ):
            continue
        if late and not deadline.allows_report():
            log(f"no time for scores and report of {member.workdir.path}: the next start has it")
            continue
        with deadline.timing.phase(REPORT):
            reporting.finish(member.run, member.workdir, log)
    if late:
        raise late


def _train(members: Sequence[Member], programs: Programs, deadline: Deadline, log: Log) -> None:
    with ExitStack() as stack:
        stop = stack.enter_context(_stop_signals())
        for member in members:
            stack.callback(member.close)
        for group, states in _abreast(members):
            Course(group, states, programs, stop, deadline, len(members), log).run()


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
