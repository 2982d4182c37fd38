"""Times one IB-GAN training step, interleaved with what it is compared to.

    python -m benchmarks.step [--width=16] [--steps=10] [--rounds=7] [--json=FILE]

Rows: the step on images that lie ready (`bare`), fed from the resident data set as training feeds
it (`resident`), the same networks without minimal filtering (`patches`), and with XLA's own
convolutions (`lax`), which run outside `lax.scan` because their gradients collapse inside it; on a
CPU where PyTorch is installed, its step too (`pytorch`, and with bfloat16 autocast `pytorch bf16`).
Each round runs every row once; the table gives medians and minima over the rounds and ratios of
medians. Compile time stands apart.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ibgan_jax import models
from ibgan_jax.data import sprites
from ibgan_jax.data.dataset import ResidentDataset
from ibgan_jax.networks import convolution, winograd
from ibgan_jax.training import state, step
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


def rows(width: int, steps: int) -> dict:
    """{name: a function that runs `steps` steps}, each with a state of its own."""
    model = models.get("ibgan", generator_width=width, discriminator_width=width)
    hparams = {key: jnp.float32(value) for key, value in model.hparams.items()}
    dataset = ResidentDataset(random_records(), "random", ("index",), (4096,))
    images = dataset.images(np.arange(BATCH)[:, None])
    batch = dataset.lookup(np.arange(steps * BATCH).reshape(steps, BATCH) % dataset.size)
    nothing = jnp.zeros((steps, 1))
    bare = step.make_train_steps(model, lambda arrays, batch: arrays)
    resident = step.make_train_steps(model, dataset.decode)
    single = jax.jit(lambda s, i, h: step.train_step(model, s, i, h), donate_argnums=0)

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

    programs: dict[str, Program] = {
        "bare": lambda s: bare(s, images, nothing, hparams)[0],
        "resident": lambda s: resident(s, dataset.arrays, batch, hparams)[0],
        "patches": patches,
        "lax": loop,
    }
    create = jax.jit(lambda: state.create(model, 0, hparams))
    made = {name: (program, create()) for name, program in programs.items()}
    return {**made, **pytorch_rows(width, np.asarray(images), steps)}


def pytorch_rows(width: int, images: np.ndarray, steps: int) -> dict:
    """The same of PyTorch, where it is installed, on images [B, 64, 64, 1].

    On the CPU only: beside JAX on another device the ratio would say nothing.
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        import torch

        from benchmarks import pytorch
    except ImportError:
        return {}

    def row(bfloat16: bool) -> tuple[Program, None]:
        x = torch.tensor(images).permute(0, 3, 1, 2)
        update = pytorch.make_step(width, x, os.cpu_count() or 1, bfloat16)

        def program(_: None) -> None:
            for _ in range(steps):
                update()

        return program, None

    return {"pytorch": row(False), "pytorch bf16": row(True)}


def measure(width: int, steps: int, rounds: int) -> dict:
    """{name: {"compile_s", "median_ms", "min_ms"}} of one interleaved run."""
    programs, result = rows(width, steps), {}
    for name, (program, current) in programs.items():
        start = time.perf_counter()
        programs[name] = (program, jax.block_until_ready(program(current)))
        result[name] = {"compile_s": time.perf_counter() - start, "ms": []}
    for _ in range(rounds):
        for name, (program, current) in programs.items():
            start = time.perf_counter()
            programs[name] = (program, jax.block_until_ready(program(current)))
            result[name]["ms"].append(1e3 * (time.perf_counter() - start) / steps)
    for row in result.values():
        times = row.pop("ms")
        row |= {"median_ms": float(np.median(times)), "min_ms": min(times)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=16, help="g = d of the networks")
    parser.add_argument("--steps", type=int, default=10, help="steps a dispatch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.width, options.steps, options.rounds)
    machine = {
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "jax": jax.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "commit": environment()["commit"],
        "width": options.width,
        "batch": BATCH,
    }
    print("  ".join(f"{key} {value}" for key, value in machine.items()))
    base = result["bare"]["median_ms"]
    print(f"{'row':13}{'median ms':>11}{'min ms':>9}{'ratio':>7}{'first s':>9}")
    for name, row in result.items():
        ratio = row["median_ms"] / base
        print(
            f"{name:13}{row['median_ms']:11.1f}{row['min_ms']:9.1f}{ratio:7.2f}"
            f"{row['compile_s']:9.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": result}, indent=2))


if __name__ == "__main__":
    main()
