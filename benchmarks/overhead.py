"""What share of a run's wall time is not training: a simulation of the loop on an accelerator.

    python -m benchmarks.overhead [--members=10] [--evaluations=60] [--seconds=500] [--parts=10]
        [--score_device=0.05] [--score_host=0.2] [--report=8] [--compiling=60] [--json=FILE]

The loop, its members, their records and checkpoints, the thread beside the steps and the order of
the data are the real ones, on small networks with `train.light`. Stand-ins are the device, on which
a dispatch of steps and the device's part of a score take their time one after the other, and the
score, whose host's part is a pause. One part of the run is simulated and counted `parts` times;
compiling and the members' reports, which come once, are added as given. Seconds are those of a
member; `seconds` are those that the steps take on the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step import machine, random_records
from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.sprite_dataset import SpriteDataset
from ibgan_jax.models.base import Hparams
from ibgan_jax.training import evaluation
from ibgan_jax.training.course import Course
from ibgan_jax.training.deadline import Deadline
from ibgan_jax.training.member import Member
from ibgan_jax.training.population import Program, Programs
from ibgan_jax.training.run import Run
from ibgan_jax.training.state import all_finite
from ibgan_jax.training.timing import Timing
from ibgan_jax.training.workdir import Workdir

STEPS_A_PART, K, LOG_EVERY = 15_000, 50, 500
EXAMPLES = 737_280  # as many as dSprites, whose epochs' orders are made as training goes


class Device:
    """Does one piece of work after another, each for its seconds."""

    def __init__(self) -> None:
        self._free = 0.0

    def start(self, seconds: float) -> float:
        """The moment at which work that is dispatched now will be done."""
        self._free = max(self._free, time.monotonic()) + seconds
        return self._free


@dataclasses.dataclass
class Later:
    """Zeros that are there from a moment on."""

    shape: tuple[int, ...]
    done: float

    def block_until_ready(self) -> Later:
        time.sleep(max(self.done - time.monotonic(), 0))
        return self

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        self.block_until_ready()
        return np.zeros(self.shape, np.float32)


class Simulated(Programs):
    """Programs of which the step is not compiled but takes its time.

    Attributes:
      began, done: the moments of the first dispatch, and at which the last one is done.
    """

    def __init__(self, run: Run, device: Device, seconds: float) -> None:
        super().__init__(run)
        self._device, self._seconds = device, seconds
        self.began = self.done = 0.0

    def _compile(self, mesh: Any, together: int, steps: int) -> Program:
        run = self._run
        names = ["loss/generator", "loss/discriminator", "bounds/upper", "bounds/lower"]
        names += [*run.model.headline, *(f"kl/{i}" for i in range(run.model.r_dim))]

        def compiled(state: Any, arrays: Any, batch: Any, hparams: Hparams) -> tuple[Any, Any]:
            del arrays, batch, hparams
            self.began = self.began or time.monotonic()
            self.done = self._device.start(self._seconds * steps)
            return state, {name: Later((together, steps), self.done) for name in names}

        images = run.config.train.batch_size * run.model.batches
        return Program(mesh, together, steps, images, compiled, run.dataset.arrays, 0, 0)


def scores(device: Device, on_device: float, on_host: float) -> Callable:
    """In place of `evaluation.score_members`."""

    def score_members(runs: list[Run], variables: Any, step: int, log: Any) -> list[tuple]:
        del variables, step, log
        Later((), device.start(on_device * len(runs))).block_until_ready()
        time.sleep(on_host * len(runs))
        return [({evaluation.SCORE: 0.5, "score/active_dimensions": 3}, 0.5) for _ in runs]

    return score_members


def simulate(options: argparse.Namespace, folder: Path) -> tuple[Timing, float, float]:
    """One part of the run: where its time went, its seconds from first to last step, and after."""
    config = configs.base("overhead", "ibgan")
    config.network.generator_width = config.network.discriminator_width = 2
    config.train.update({"steps": STEPS_A_PART, "steps_per_dispatch": K, "log_every": LOG_EVERY})
    config.train.evaluate_every = STEPS_A_PART * options.parts // options.evaluations
    config.train.checkpoint_every, config.train.light = STEPS_A_PART, True
    mesh = distributed.mesh_for(1)
    records = np.resize(random_records(), (EXAMPLES, 8))
    dataset = SpriteDataset(ResidentFeed(records), "random", ("index",), (EXAMPLES,))
    numbers = {key: np.float32(x) for key, x in config.hparams.items()}
    hparams = distributed.place(numbers, distributed.replicated(mesh))
    run = Run(config, configs.make_model(config), dataset, mesh, hparams)
    members = []
    for seed in range(options.members):
        own = config.copy_and_resolve_references()
        own.seed = seed
        workdir = Workdir(folder / str(seed))
        workdir.create()
        members.append(Member(run.of(own), workdir, print))
    device = Device()
    evaluation.score_members = scores(device, options.score_device, options.score_host)
    distributed.records_beside_steps = lambda mesh: True
    distributed.members_together = lambda mesh, members: members
    programs = Simulated(run, device, options.seconds / options.parts / STEPS_A_PART)
    states = [member.resume() for member in members]
    stacked = distributed.stack(mesh, *states)  # compiled before, as `warmed` does
    all_finite(distributed.member(mesh, stacked, 0))
    timing = Timing()
    deadline = Deadline(0.0, timing)
    Course(members, states, programs, lambda: False, deadline, len(members), print).run()
    with timing.phase("saves"):
        for member in members:
            member.close()
    return timing, programs.done - programs.began, time.monotonic() - programs.done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=500, help="of steps")
    parser.add_argument("--parts", type=int, default=10, help="of which one is simulated")
    parser.add_argument("--score_device", type=float, default=0.05, help="seconds a member")
    parser.add_argument("--score_host", type=float, default=0.2, help="seconds a member")
    parser.add_argument("--report", type=float, default=8.0, help="seconds a member")
    parser.add_argument("--compiling", type=float, default=60.0, help="seconds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        timing, part, ending = simulate(options, Path(folder))
        taken = timing.as_dict()
    loop = options.parts * part + ending
    whole = loop + options.compiling + options.report * options.members
    found = {
        "machine": machine(),
        "options": {key: x for key, x in vars(options).items() if key != "json"},
        "simulated_s": time.monotonic() - start,
        "part": {"steps_s": options.seconds / options.parts, "taken_s": part, "ending_s": ending},
        "phases_s": taken["phases_s"],
        "beside_s": taken["beside_s"],
        "loop_s": loop,
        "loop_share": 1 - options.seconds / loop,
        "whole_s": whole,
        "whole_share": 1 - options.seconds / whole,
    }
    print(timing)
    share = found["loop_share"]
    print(
        f"{options.seconds:.0f} s of steps take {loop:.0f} s with {options.evaluations} "
        f"evaluations of {options.members} members: {share:.1%} of it is not training; "
        f"with compiling and reports {whole:.0f} s, {found['whole_share']:.1%}"
    )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
