"""Times one IB-GAN training step, interleaved with what it is compared to.

    python -m benchmarks.step [--width=16] [--steps=10] [--rounds=7] [--population=4,10]
        [--rows=NAME,NAME] [--json=FILE]

Rows: the step on images that lie ready (`bare`), fed from the resident data set as training feeds
it (`resident`), `bare` in the form that training does not choose (on a CPU `patches`, elsewhere
`filtered`) and with XLA's own convolutions (`lax`). On a CPU those run outside `lax.scan`, because
their gradients collapse inside it; elsewhere inside, for single steps would time the host. `pixel
shuffle` is `bare` with `network.pixel_shuffle`. Where PyTorch is installed for the same device, its
step too (`pytorch`, and with bfloat16 autocast `pytorch bf16`). All in float32, and on an
accelerator also at the other precisions (`resident tf32`, `resident bfloat16`, `pytorch tf32`);
there JAX leaves PyTorch memory only with XLA_PYTHON_CLIENT_PREALLOCATE=false in the environment.
With --population=4,10 also populations of so many members, as they train (`population 4`) and, on
a CPU, with all of them in one vmap (`vmap 4`), which elsewhere is how they train; in time a member.

Each round runs every row once; the table has medians, minima and ratios of medians. Compiling a row
stands apart. `benchmarks.gpu` is the quick way to compare populations and precisions on a GPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.data import sprites
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.sprite_dataset import SpriteDataset
from ibgan_jax.errors import UserError
from ibgan_jax.networks import formulation
from ibgan_jax.training import state, step
from ibgan_jax.training.population import Population, Programs
from ibgan_jax.training.run import Run
from ibgan_jax.training.workdir import environment

BATCH = 64
Program = Callable[[Any], Any]  # the state, or None -> the same after the steps


@dataclasses.dataclass(frozen=True)
class Made:
    """A row that can run.

    Attributes:
      program: runs the steps of all members. state: its own, the first. members: how many.
    """

    program: Program
    state: Any
    members: int


Rows = dict[str, Callable[[], Made]]  # by name, made when they are wanted


def random_records(count: int = 4096) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, sprites.RECORD_BYTES), np.uint8)


def rows(width: int, steps: int, populations: Sequence[int] = ()) -> Rows:
    """All rows that there are on this device, each of `steps` steps."""
    jax.config.update("jax_default_matmul_precision", distributed.PRECISIONS[distributed.EXACT])
    config = configs.base("benchmark", "ibgan")
    config.network.generator_width = config.network.discriminator_width = width
    config.train.steps_per_dispatch = config.train.steps = steps
    config.train.update({f"{key}_every": steps for key in ("log", "evaluate", "checkpoint")})
    model = configs.make_model(config)
    hparams = {key: jnp.float32(value) for key, value in model.hparams.items()}
    dataset = SpriteDataset(ResidentFeed(random_records()), "random", ("index",), (4096,))
    images = dataset.images(np.arange(BATCH)[:, None])
    batch = dataset.lookup(np.arange(steps * BATCH).reshape(1, steps, BATCH) % dataset.size)
    run = Run(config, model, dataset, distributed.mesh_for(1), hparams)
    shuffled = dataclasses.replace(run, model=dataclasses.replace(model, pixel_shuffle=True))
    on_cpu = jax.default_backend() == "cpu"
    other = "patches" if on_cpu else "filtered"  # than what training takes
    made: Rows = {
        "bare": lambda: bare(run, images, steps),
        "resident": lambda: resident(run, batch),
        other: lambda: bare(run, images, steps, other),
        "lax": lambda: (step_by_step if on_cpu else bare)(run, images, steps, "lax"),
        "pixel shuffle": lambda: bare(shuffled, images, steps),
    }
    if not on_cpu:
        others = [name for name in distributed.PRECISIONS if name != distributed.EXACT]
        made |= {f"resident {x}": lambda x=x: resident(run, batch, x) for x in others}
    for count in populations:
        made[f"population {count}"] = lambda n=count: population(run, batch, steps, n)
        if on_cpu:
            made[f"vmap {count}"] = lambda n=count: resident(run, batch, members=n)
    return {**made, **pytorch_rows(width, np.asarray(images), steps)}


def chosen(form: str = formulation.AUTO, precision: str = distributed.EXACT) -> Any:
    """The formulation of a row's convolutions on this device."""
    return formulation.choose(jax.default_backend(), form, precision)


def together(run: Run, members: int) -> tuple[Any, Any]:
    """States and hparams of so many members, leaves [members, ...]."""
    states = [run.create_state() for _ in range(members)]
    return distributed.stack(run.mesh, *states), distributed.stack(
        run.mesh, *[run.hparams] * members
    )


def bare(run: Run, images: jax.Array, steps: int, form: str = formulation.AUTO) -> Made:
    """Steps on images [B, 64, 64, 1] that lie ready."""
    program = step.make_train_steps(run.model, lambda arrays, batch: arrays)
    nothing = jnp.zeros((1, steps, 1))
    current, hparams = together(run, 1)

    def advance(current: state.TrainState) -> state.TrainState:
        with formulation.using(chosen(form)):
            return program(current, images, nothing, hparams)[0]

    return Made(advance, current, 1)


def resident(run: Run, batch: Any, precision: str = distributed.EXACT, members: int = 1) -> Made:
    """Steps of members in one vmap, fed from the resident data set by batches [1, K, B]."""
    program = step.make_train_steps(run.model, run.dataset.decode)
    batches = jax.tree.map(lambda x: np.repeat(x, members, axis=0), batch)
    current, hparams = together(run, members)

    def advance(current: state.TrainState) -> state.TrainState:
        algorithm = distributed.PRECISIONS[precision]
        with (
            jax.default_matmul_precision(algorithm),
            formulation.using(chosen(precision=precision)),
        ):
            return program(current, run.dataset.arrays, batches, hparams)[0]

    return Made(advance, current, members)


def step_by_step(run: Run, images: jax.Array, steps: int, form: str) -> Made:
    """As `bare`, but each step is a dispatch of its own."""

    def one_step(current: state.TrainState) -> state.TrainState:
        alone = jax.tree.map(lambda x: x[0], current)
        after, _ = step.train_step(run.model, alone, images, run.hparams)
        return jax.tree.map(lambda x: x[None], after)

    program = jax.jit(one_step, donate_argnums=0)

    def advance(current: state.TrainState) -> state.TrainState:
        with formulation.using(chosen(form)):
            for _ in range(steps):
                current = program(current)
        return current

    return Made(advance, together(run, 1)[0], 1)


def population(run: Run, batch: Any, steps: int, count: int) -> Made:
    """A population as it trains, fed as `resident` is."""
    batches = jax.tree.map(lambda x: np.repeat(x, count, axis=0), batch)
    program = Programs(run).of(count, 0)
    states = [run.create_state() for _ in range(count)]
    members = Population(program, states, [run.hparams] * count)

    def advance(_: None) -> None:
        for first in range(0, steps, program.steps):
            part = slice(first, first + program.steps)
            members.advance(jax.tree.map(lambda x, part=part: x[:, part], batches))
        members.fetch()

    return Made(advance, None, count)


def pytorch_rows(width: int, images: np.ndarray, steps: int) -> Rows:
    """The same of PyTorch, where it is installed, on images [B, 64, 64, 1].

    On JAX's device only: a ratio to a step on another would say nothing.
    """
    try:
        import torch

        from benchmarks import pytorch
    except ImportError:
        return {}
    cpu = jax.default_backend() == "cpu"
    if not cpu and not (jax.default_backend() == "gpu" and torch.cuda.is_available()):
        return {}

    def row(bfloat16: bool = False, tf32: bool = False) -> Made:
        x = torch.tensor(images, device="cpu" if cpu else "cuda").permute(0, 3, 1, 2)
        update = pytorch.make_step(width, x, os.cpu_count() or 1, bfloat16, tf32)

        def program(_: None) -> None:
            for _ in range(steps):
                update()
            if not cpu:
                torch.cuda.synchronize()

        return Made(program, None, 1)

    made: Rows = {"pytorch": row, "pytorch bf16": lambda: row(bfloat16=True)}
    return made if cpu else {**made, "pytorch tf32": lambda: row(tf32=True)}


def measure(
    width: int, steps: int, rounds: int, populations: Sequence[int], wanted: Sequence[str]
) -> dict:
    """{name: {"compile_s", "median_ms", "min_ms"}}, a step of a member, of one interleaved run.

    Raises:
      UserError: a row of `wanted` does not exist here.
    """
    makers, made, result = rows(width, steps, populations), {}, {}
    if unknown := [name for name in wanted if name not in makers]:
        raise UserError(f"no row {unknown[0]!r} here; there are: {', '.join(makers)}")

    def advance(name: str) -> float:
        start, row = time.perf_counter(), made[name]
        after = jax.block_until_ready(row.program(row.state))
        made[name] = dataclasses.replace(row, state=after)
        return time.perf_counter() - start

    for name in [name for name in makers if not wanted or name in wanted]:
        start = time.perf_counter()
        made[name] = makers[name]()
        advance(name)
        result[name] = {"compile_s": time.perf_counter() - start, "ms": []}
    turns, order = random.Random(0), list(made)
    for _ in range(rounds):
        turns.shuffle(order)  # who comes first, or after whom, must not matter
        for name in order:
            result[name]["ms"].append(1e3 * advance(name) / steps / made[name].members)
    for row in result.values():
        times = row.pop("ms")
        row |= {"median_ms": float(np.median(times)), "min_ms": min(times)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=16, help="g = d of the networks")
    parser.add_argument("--steps", type=int, default=10, help="steps a dispatch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--population", default="", help="sizes, such as 4,10")
    parser.add_argument("--rows", default="", help="only these, separated by commas")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    populations = [int(size) for size in options.population.split(",") if size]
    wanted = [name for name in options.rows.split(",") if name]
    try:
        result = measure(options.width, options.steps, options.rounds, populations, wanted)
    except UserError as error:
        parser.error(str(error))
    found = {"machine": machine() | {"width": options.width}, "rows": result}
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def machine() -> dict:
    """Where and when: device, versions, commit, and how busy it is."""
    return {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "commit": environment()["commit"],
        "batch": BATCH,
    }


def show(found: dict) -> None:
    """Prints the rows as a table."""
    print("  ".join(f"{key} {value}" for key, value in found["machine"].items()))
    base = next(iter(found["rows"].values()))["median_ms"]
    print(f"{'row':15}{'median ms':>11}{'min ms':>9}{'ratio':>7}{'first s':>9}")
    for name, row in found["rows"].items():
        ratio = row["median_ms"] / base
        print(
            f"{name:15}{row['median_ms']:11.1f}{row['min_ms']:9.1f}{ratio:7.2f}"
            f"{row['compile_s']:9.1f}"
        )


if __name__ == "__main__":
    main()
