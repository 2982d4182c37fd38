"""How many members of a population finish within a limit, from the pace that was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import jax

from ibgan_jax import distributed
from ibgan_jax.data.order import Order
from ibgan_jax.training import timing
from ibgan_jax.training.deadline import Deadline
from ibgan_jax.training.member import Log, Member
from ibgan_jax.training.population import Population, Programs
from ibgan_jax.training.run import Run

DISPATCHES = 4  # that are timed, after a first one that is not
# The part of a step of many members in one program that fewer of them would not spare: starting
# kernels, above all (an H200, float16: 3.79 ms for ten members, 1.98 ms for four).
SHARED = 0.2
# The part of a score's time that steps lose to it where it is taken beside them (the same run: 0.33
# of 1.37 s).
LOST = 0.25


def chosen(
    members: Sequence[Member], programs: Programs, size: int, deadline: Deadline, log: Log
) -> int:
    """How many of the members, `size` of which fit in memory together, finish before `deadline`."""
    run = members[0].run
    train = run.config.train
    steps = [max(train.steps - member.newest, 0) for member in members]
    if not any(steps):
        return len(members)
    with deadline.timing.phase(timing.COMPILING):
        program = programs.of(size, 0)
    seconds = seconds_a_step(programs, run, size)
    lost = LOST if distributed.records_beside_steps(program.mesh) else 1.0
    evaluations = max(steps) // train.evaluate_every
    likely = deadline.likely

    def pace(count: int) -> float:
        shared = SHARED if program.together > 1 and count < size else 0.0
        return seconds * (1 + shared * (size / count - 1))

    def ending(count: int) -> float:
        fewer = distributed.members_together(distributed.mesh_for(count), count)
        again = likely(timing.COMPILING) if fewer != program.together else 0.0
        scores = lost * likely(timing.SCORES, count * evaluations)
        return again + scores + likely(timing.SAVES, count) + likely(timing.REPORT, count)

    finish = int(distributed.agreed(finishing(steps, pace, deadline.left(), ending)))
    log(told(steps, seconds, deadline.minutes, finish))
    return finish


def seconds_a_step(programs: Programs, run: Run, members: int) -> float:
    """Of one member, where so many train together; states and steps are thrown away."""
    program = programs.of(members, 0)
    count, steps = program.together, program.steps
    states = [run.create_state() for _ in range(count)]
    population = Population(program, states, [run.hparams] * count)
    orders = [Order(run.dataset.size, run.config.seed)] * len(population.fed)
    numbers = (0, steps * (1 + DISPATCHES), steps, program.batch_size, population.batch_part)
    start = 0.0
    for number, batches in enumerate(run.dataset.batches(orders, *numbers)):
        population.advance(batches)
        if number == 0:
            jax.block_until_ready(population.fetch())
            start = time.monotonic()
    population.fetch()
    return (time.monotonic() - start) / (DISPATCHES * steps * count)


def finishing(
    steps: Sequence[int],
    pace: Callable[[int], float],
    left: float,
    ending: Callable[[int], float],
) -> int:
    """How many of the members that have so many `steps` to go finish in the seconds `left`.

    A step of one of n members takes `pace(n)`, and what comes after the last one `ending(n)`. They
    are taken in their order; at least one.
    """
    counts = range(1, len(steps) + 1)
    fit = [n for n in counts if sum(steps[:n]) * pace(n) + ending(n) <= left]
    return max(fit, default=1)


def told(steps: Sequence[int], seconds: float, minutes: float, finish: int) -> str:
    """One line about the choice of `finish` members, for a limit of so many `minutes`."""
    count, longest = len(steps), max(steps)
    finishes, trains = ("finishes", "trains") if finish == 1 else ("finish", "train")
    how_many = "all of them finish" if finish == count else f"{finish} of them {finishes}"
    later = "" if finish == count else f", {count - finish} at the next start"
    return (
        f"{count} members: {1e3 * seconds * count:.1f} ms a step, "
        f"{seconds * sum(steps) / 60:.0f} min for {longest:,} steps; "
        f"{how_many} in {minutes:g} min: {finish} {trains} now{later}"
    )
