"""Times one IB-GAN training step, interleaved with what it is compared to.

    python -m benchmarks.step [--width=16] [--steps=10] [--rounds=7] [--population=4,10]
        [--rows=NAME,NAME] [--json=FILE]

Rows: the step on images that lie ready (`bare`), fed from the resident data set as training feeds
it (`resident`), the same networks without minimal filtering (`patches`), and with XLA's own
convolutions (`lax`), which run outside `lax.scan` because their gradients collapse inside it; where
PyTorch is installed for the same device, its step too (`pytorch`, and with bfloat16 autocast
`pytorch bf16`). All in float32, and on an accelerator also at the other precisions (`resident
tf32`, `resident bfloat16`, `pytorch tf32`); there JAX leaves PyTorch memory only with
XLA_PYTHON_CLIENT_PREALLOCATE=false in the environment. With --population=4,10 also populations of
so many members, as they train (`population 4`) and with all of them in one vmap (`vmap 4`), in time
a member. Each round runs every row once; the table gives medians and minima over the rounds and
ratios of medians. Compile time stands apart.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.data import sprites
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.sprite_dataset import SpriteDataset
from ibgan_jax.networks import convolution, winograd
from ibgan_jax.training import state, step
from ibgan_jax.training.population import Population, Programs
from ibgan_jax.training.run import Run
from ibgan_jax.training.workdir import environment

BATCH = 64
Program = Callable[[Any], Any]  # the state, or None -> the same after the steps


def lax_convolve(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def lax_convolve_transpose(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    rest = kernel.shape[0] - 1 - pad
    return lax.conv_transpose(
        x,
        kernel,
        (stride, stride),
        ((rest, rest), (rest, rest)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        transpose_kernel=True,
    )


def random_records(count: int = 4096) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, sprites.RECORD_BYTES), np.uint8)


def rows(width: int, steps: int, populations: Sequence[int] = ()) -> dict:
    """{name: (a function that runs `steps` steps, a state of its own, members)}."""
    jax.config.update("jax_default_matmul_precision", distributed.PRECISIONS[distributed.EXACT])
    config = configs.base("benchmark", "ibgan")
    config.network.generator_width = config.network.discriminator_width = width
    config.train.steps_per_dispatch = config.train.steps = steps
    config.train.update({f"{key}_every": steps for key in ("log", "evaluate", "checkpoint")})
    model = configs.make_model(config)
    scalars = {key: jnp.float32(value) for key, value in model.hparams.items()}
    hparams = {key: value[None] for key, value in scalars.items()}
    dataset = SpriteDataset(ResidentFeed(random_records()), "random", ("index",), (4096,))
    images = dataset.images(np.arange(BATCH)[:, None])
    batch = dataset.lookup(np.arange(steps * BATCH).reshape(1, steps, BATCH) % dataset.size)
    nothing = jnp.zeros((1, steps, 1))
    bare = step.make_train_steps(model, lambda arrays, batch: arrays)
    resident = step.make_train_steps(model, dataset.decode)

    def one_step(current: state.TrainState, images: jax.Array, hparams: Any) -> tuple:
        current, hparams = jax.tree.map(lambda x: x[0], (current, hparams))
        return jax.tree.map(lambda x: x[None], step.train_step(model, current, images, hparams))

    single = jax.jit(one_step, donate_argnums=0)

    def loop(current: state.TrainState) -> state.TrainState:
        with mock.patch.multiple(
            convolution, convolve=lax_convolve, convolve_transpose=lax_convolve_transpose
        ):
            for _ in range(steps):
                current, _ = single(current, images, hparams)
        return current

    unfiltered = step.make_train_steps(model, lambda arrays, batch: arrays)

    def patches(current: state.TrainState) -> state.TrainState:
        with mock.patch.dict(winograd.MATRICES, clear=True):
            return unfiltered(current, images, nothing, hparams)[0]

    def at_precision(name: str, current: state.TrainState) -> state.TrainState:
        with jax.default_matmul_precision(distributed.PRECISIONS[name]):
            return resident(current, dataset.arrays, batch, hparams)[0]

    programs: dict[str, Program] = {
        "bare": lambda s: bare(s, images, nothing, hparams)[0],
        "resident": lambda s: resident(s, dataset.arrays, batch, hparams)[0],
        "patches": patches,
        "lax": loop,
    }
    if jax.default_backend() != "cpu":
        for name in distributed.PRECISIONS:
            if name != distributed.EXACT:
                programs[f"resident {name}"] = partial(at_precision, name)
    run = Run(config, model, dataset, distributed.mesh_for(1), scalars)
    made = {
        name: (program, distributed.stack(run.mesh, run.create_state()), 1)
        for name, program in programs.items()
    }
    for count in populations:
        made |= population_rows(run, batch, steps, count)
    return {**made, **pytorch_rows(width, np.asarray(images), steps)}


def population_rows(run: Run, batch: Any, steps: int, count: int) -> dict:
    """A population as it trains, and all of its members in one vmap, fed as `resident` is."""
    batches = jax.tree.map(lambda x: np.repeat(x, count, axis=0), batch)
    states = [run.create_state() for _ in range(count)]
    hparams = [run.hparams] * count
    together = distributed.stack(run.mesh, *states), distributed.stack(run.mesh, *hparams)
    program = Programs(run).of(count, 0)
    members = Population(program, states, hparams)
    every = step.make_train_steps(run.model, run.dataset.decode)

    def in_turn(_: None) -> None:
        for first in range(0, steps, program.steps):
            some = slice(first, first + program.steps)
            members.advance(jax.tree.map(lambda x, some=some: x[:, some], batches))
        members.fetch()

    def at_once(current: state.TrainState) -> state.TrainState:
        return every(current, run.dataset.arrays, batches, together[1])[0]

    return {
        f"population {count}": (in_turn, None, count),
        f"vmap {count}": (at_once, together[0], count),
    }


def pytorch_rows(width: int, images: np.ndarray, steps: int) -> dict:
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

    def row(bfloat16: bool = False, tf32: bool = False) -> tuple[Program, None, int]:
        x = torch.tensor(images, device="cpu" if cpu else "cuda").permute(0, 3, 1, 2)
        update = pytorch.make_step(width, x, os.cpu_count() or 1, bfloat16, tf32)

        def program(_: None) -> None:
            for _ in range(steps):
                update()
            if not cpu:
                torch.cuda.synchronize()

        return program, None, 1

    found = {"pytorch": row(), "pytorch bf16": row(bfloat16=True)}
    return found if cpu else {**found, "pytorch tf32": row(tf32=True)}


def measure(
    width: int, steps: int, rounds: int, populations: Sequence[int], wanted: Sequence[str]
) -> dict:
    """{name: {"compile_s", "median_ms", "min_ms"}}, a step of a member, of one interleaved run."""
    programs, result = rows(width, steps, populations), {}
    programs = {name: row for name, row in programs.items() if not wanted or name in wanted}
    for name, (program, current, members) in programs.items():
        start = time.perf_counter()
        programs[name] = (program, jax.block_until_ready(program(current)), members)
        result[name] = {"compile_s": time.perf_counter() - start, "ms": []}
    turns, order = random.Random(0), list(programs)
    for _ in range(rounds):
        turns.shuffle(order)  # who comes first, or after whom, must not matter
        for name in order:
            program, current, members = programs[name]
            start = time.perf_counter()
            programs[name] = (program, jax.block_until_ready(program(current)), members)
            taken = 1e3 * (time.perf_counter() - start)
            result[name]["ms"].append(taken / steps / members)
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
    result = measure(options.width, options.steps, options.rounds, populations, wanted)
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
