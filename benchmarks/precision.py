"""What TF32 and bfloat16 products do to the losses of IB-GAN's first steps.

    python -m benchmarks.precision [--steps=1000] [--width=16] [--dir=data] [--json=FILE]
        [--figure=FILE]

The same run of configs/dsprites.py, same images and draws, at each `train.precision`. A CPU has
float32 alone, so there the factors of the products are rounded by hand (`benchmarks.rounding`).
Two rows say how much a difference means: the same run in float32 without minimal filtering, which
rounds otherwise in the last bits and is as right, and the run of another seed.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from benchmarks.rounding import rounded
from benchmarks.step import machine
from configs import dsprites
from ibgan_jax import distributed
from ibgan_jax.data.order import Order
from ibgan_jax.networks import winograd
from ibgan_jax.reports.spread import spread_figure
from ibgan_jax.training.population import Population, Program, Programs
from ibgan_jax.training.run import Run, build
from ibgan_jax.training.step import make_train_steps

TAGS = ("loss/discriminator", "bounds/lower", "bounds/upper")
OTHERWISE, ANOTHER = "float32, unfiltered", "float32, another seed"
WINDOW = 20  # steps that a value is the mean of


def program_at(run: Run, precision: str) -> Program:
    """The program that trains the run at a precision, or does by hand what this device cannot."""
    lacks_it = precision != distributed.EXACT and distributed.devices()[0].platform == "cpu"
    run.config.train.precision = distributed.EXACT if lacks_it else precision
    program = Programs(run).of(1, 0)
    if not lacks_it:
        return program
    state, hparams = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), (run.state_template(), run.hparams)
    )
    batch = run.dataset.lookup(np.zeros((1, program.steps, program.batch_size), int))
    steps = make_train_steps(run.model, run.dataset.decode)
    by_hand = rounded(
        steps, distributed.PRECISIONS[precision], state, program.arrays, batch, hparams
    )
    return dataclasses.replace(program, compiled=by_hand)


def curves(run: Run, program: Program) -> dict[str, np.ndarray]:
    """Each of TAGS, [steps]."""
    population = Population(program, [run.create_state()], [run.hparams])
    orders, train = [Order(run.dataset.size, run.config.seed)], run.config.train
    numbers = (0, train.steps, program.steps, train.batch_size, population.batch_part)
    for batches in run.dataset.batches(orders, *numbers):
        population.advance(batches)
    measured = population.fetch()[0]
    return {tag: measured[tag] for tag in TAGS}


def rows(directory: Path, width: int, steps: int) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(name, curves) of every row; float32 first."""
    config = dsprites.get_config()
    config.dataset.dir = str(directory)
    config.network.update({"generator_width": width, "discriminator_width": width})
    config.train.steps = steps
    config.train.update({f"{key}_every": steps for key in ("log", "evaluate", "checkpoint")})
    run = build(config)
    for precision in distributed.PRECISIONS:
        yield precision, curves(run, program_at(run, precision))
    with mock.patch.dict(winograd.MATRICES, clear=True):
        yield OTHERWISE, curves(run, program_at(run, distributed.EXACT))
    another = run.of(copy.deepcopy(config))
    another.config.seed += 1
    yield ANOTHER, curves(another, program_at(another, distributed.EXACT))


def windows(curve: np.ndarray) -> np.ndarray:
    """The means of WINDOW steps each."""
    return curve[: len(curve) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(axis=1)


def compared(curve: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """How far a curve is from that in float32, at the first step and in windows' root mean square.

    And where it ends, the mean of the last tenth.
    """
    return {
        "first": abs(float(curve[0] - exact[0])),
        "rms": float(np.sqrt(np.mean((windows(curve) - windows(exact)) ** 2))),
        "end": float(curve[-(len(curve) // 10) :].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=int, default=16, help="g = d of the networks")
    parser.add_argument("--dir", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.steps < WINDOW:
        parser.error(f"--steps={options.steps} must be {WINDOW} or more")
    found: dict[str, Any] = {
        "machine": machine() | {"width": options.width, "steps": options.steps},
        "rows": {},
    }
    made: dict[str, dict[str, np.ndarray]] = {}
    print(f"{'row':24}" + "".join(f"{tag:>34}" for tag in TAGS))
    print(f"{'':24}" + f"{'first':>12}{'rms':>10}{'end':>12}" * len(TAGS))
    for name, curve in rows(options.dir, options.width, options.steps):
        made[name] = curve
        row = {tag: compared(curve[tag], made[distributed.EXACT][tag]) for tag in TAGS}
        found["rows"][name] = row
        cells = (f"{x['first']:12.1e}{x['rms']:10.4f}{x['end']:12.4f}" for x in row.values())
        print(f"{name:24}" + "".join(cells), flush=True)
    if options.figure:
        records = {name: [_records(curve)] for name, curve in made.items()}
        spread_figure(options.figure, records, TAGS[0])
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def _records(curve: dict[str, np.ndarray]) -> list[dict[str, float]]:
    means = {tag: windows(values) for tag, values in curve.items()}
    return [
        {"step": (i + 1) * WINDOW, **{tag: float(x[i]) for tag, x in means.items()}}
        for i in range(len(means[TAGS[0]]))
    ]


if __name__ == "__main__":
    main()
