"""Members that train as one program: their states side by side on the device.

The members are `vmap`ped over the one step, as many at once as `distributed.members_together` says;
the others take turns in the same program. A run alone is a population of one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ibgan_jax import config as configs
from ibgan_jax import distributed, memory
from ibgan_jax.errors import UserError
from ibgan_jax.models.base import Hparams
from ibgan_jax.networks import formulation
from ibgan_jax.training.records import EVALUATIONS
from ibgan_jax.training.run import Run
from ibgan_jax.training.state import TrainState
from ibgan_jax.training.step import make_train_steps

MIB = 2**20
# How many members are being saved in the background at a time; more would hold more memory.
SAVES_AT_ONCE = 4


@dataclasses.dataclass(frozen=True)
class Program:
    """K compiled steps of n of the members.

    Attributes:
      mesh: as wide as the members allow.
      together: n, the others take turns.
      steps: K. batch_size: images a step.
      compiled: (state [n], arrays, batches [n, K], hparams [n]) -> (state, metrics [n, K]).
      arrays: what the data set keeps on the device.
      state_bytes: of one member. work_bytes: what a dispatch needs besides states.
    """

    mesh: Mesh
    together: int
    steps: int
    batch_size: int
    compiled: Callable
    arrays: dict[str, jax.Array]
    state_bytes: int
    work_bytes: int


class Programs:
    """The programs of one population, each compiled once."""

    def __init__(self, run: Run) -> None:
        """`run` is any of the members'."""
        self._run = run
        self._made: dict[tuple[int, int, int], Program] = {}

    def of(self, members: int, first_step: int) -> Program:
        """The program that takes so many members on from `first_step`.

        Raises:
          UserError: the batch does not split over the devices that are left to each member.
        """
        run = self._run
        mesh = distributed.mesh_for(members)
        distributed.check_batch(mesh, run.config.train.batch_size)
        together = distributed.members_together(mesh, members)
        # As many as alone, though a signal waits for all turns: with K = 1 a step takes 1.3 times
        # as long on a CPU, with K = 2 1.12 times, for every dispatch copies the state.
        steps = configs.steps_per_dispatch(run.config, first_step)
        key = (mesh.shape["population"], together, steps)
        if key not in self._made:
            self._made[key] = self._compile(mesh, together, steps)
        return self._made[key]

    def _compile(self, mesh: Mesh, together: int, steps: int) -> Program:
        run, sharding = self._run, distributed.member_sharding(mesh)

        def stacked(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((together, *x.shape), x.dtype, sharding=sharding)

        state = jax.tree.map(stacked, run.state_template())
        images = run.config.train.batch_size * run.model.batches
        # One image will do to see what a batch is made of.
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(
                (together, steps, images, *x.shape[3:]),
                x.dtype,
                sharding=distributed.batch_sharding(mesh),
            ),
            run.dataset.lookup(np.zeros((1, 1, 1), int)),
        )
        arrays, train = run.dataset.arrays, run.config.train
        platform = mesh.devices.flat[0].platform
        chosen = formulation.choose(platform, train.convolution, train.precision)
        with (
            jax.default_matmul_precision(distributed.PRECISIONS[train.precision]),
            formulation.using(chosen),
        ):
            lowered = make_train_steps(
                run.model, run.dataset.decode, sharding, distributed.replicated(mesh)
            ).lower(state, arrays, batch, jax.tree.map(stacked, run.hparams))
        compiled = lowered.compile(compiler_options=distributed.compiler_options(platform))
        size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) // together
        work = compiled.memory_analysis().temp_size_in_bytes
        return Program(mesh, together, steps, images, compiled, arrays, size, work)

    def fitting(self, members: int, log: Callable[[str], Any] = print) -> int:
        """How many of the members train at a time; says what memory they need.

        Raises:
          UserError: not even one fits.
        """
        if members == 1:
            return 1
        program = self.of(members, 0)
        room = memory.available()
        state, work = program.state_bytes, program.work_bytes
        told = f"{members} members of {_mib(state)} each and {_mib(work)} to work in"
        if room is None:
            log(f"{told}; how much memory is free cannot be known here")
            return members
        fit = _fitting(program, members, room.free)
        if fit < 1:
            raise UserError(
                f"a member needs {_mib(state + work)} of memory and {_mib(room.free)} are free; "
                "choose smaller networks or batches"
            )
        rest = "" if fit == members else f"; {fit} train at a time, the others after them"
        log(
            f"{told}, {_mib(room.used + _need(program, fit))} with what is in use already, "
            f"{_mib(room.free)} free{rest}"
        )
        return fit


def _fitting(program: Program, members: int, free: int) -> int:
    """The most members that fit in `free`."""
    return next((count for count in range(members, 0, -1) if _need(program, count) <= free), 0)


def _need(program: Program, members: int) -> float:
    """Bytes of their states, of the work on those that train at once, and of what is being saved.

    A save holds a copy of the state on the device and one on the host, which on a CPU are the same
    memory; beside the steps so many evaluations hold copies on the device.
    """
    mesh = distributed.mesh_for(members)
    together = distributed.members_together(mesh, members)
    beside = distributed.records_beside_steps(mesh)
    held = EVALUATIONS * members if beside else 2 * min(members, SAVES_AT_ONCE)
    copies = members + held
    return copies * program.state_bytes + program.work_bytes * together / program.together


def _mib(size: float) -> str:
    return f"{size / MIB:,.0f} MiB"


class Population:
    """The members' states, and what their steps have measured."""

    def __init__(
        self, program: Program, states: list[TrainState], hparams: Sequence[Hparams]
    ) -> None:
        """`states` is emptied as its members are put side by side."""
        self._program, self._count = program, len(states)
        self._turns = range(0, self._count, program.together)
        self._states, self._hparams = [], []
        for first in self._turns:
            some = slice(first, first + program.together)
            self._hparams.append(distributed.stack(program.mesh, *hparams[some]))
            self._states.append(distributed.stack(program.mesh, *states[: program.together]))
            del states[: program.together]
        # Which of a turn's members this process feeds.
        images = program.batch_size
        self._part = distributed.process_part(program.mesh, program.together, images)
        self._before: Any = None
        self._metrics: list[list[dict[str, jax.Array]]] = [[] for _ in self._turns]

    @property
    def fed(self) -> list[int]:
        """The members that this process feeds, in turn."""
        inside = range(self._program.together)[self._part.members]
        return [first + place for first in self._turns for place in inside]

    @property
    def batch_part(self) -> slice:
        """Its share of each of their batches."""
        return self._part.batch

    def advance(self, batches: Any) -> None:
        """Dispatches K steps of every member.

        `batches` are on the host, [F, K, B, ...] for the F members that are `fed` and the
        `batch_part` of theirs.
        """
        program = self._program
        share = len(self.fed) // len(self._turns)
        for turn in range(len(self._turns)):
            some = slice(turn * share, (turn + 1) * share)
            part = jax.tree.map(lambda x, some=some: x[some], batches)
            batch = distributed.put_batch(program.mesh, part)
            self._states[turn], metrics = program.compiled(
                self._states[turn], program.arrays, batch, self._hparams[turn]
            )
            self._metrics[turn].append(metrics)
            # One dispatch ahead: the device never waits for the host, nor the bar far behind.
            jax.block_until_ready(self._before)
            self._before = metrics

    def take(self) -> Callable[[], list[dict[str, np.ndarray]]]:
        """Each member's metrics [steps] since the last call; calling the result waits for them."""
        taken, self._metrics = self._metrics, [[] for _ in self._turns]
        return partial(_fetched, taken, self._program.together)

    def fetch(self) -> list[dict[str, np.ndarray]]:
        """What `take` promises."""
        return self.take()()

    def state(self, place: int) -> TrainState:
        """A copy of a member's state."""
        turn, within = divmod(place, self._program.together)
        return distributed.member(self._program.mesh, self._states[turn], within)


def _fetched(turns: list[list[dict[str, jax.Array]]], together: int) -> list[dict[str, np.ndarray]]:
    """Metrics of dispatches [n, K] of each turn -> of each member [steps]."""
    found: list[dict[str, np.ndarray]] = []
    for turn in turns:
        parts = jax.device_get(turn)
        joined = {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
        found += [{name: x[i] for name, x in joined.items()} for i in range(together)]
    return found
