"""What TF32 products and 16-bit factors do to the losses of IB-GAN's first steps.

    python -m benchmarks.precision [--steps=1000] [--width=16] [--dir=data] [--json=FILE]
        [--figure=FILE] [--rows=float16,tf32]

The same run of configs/dsprites.py, same images and draws, at each `train.precision`. A CPU has
float32 products alone. What convolutions store in 16 bits it stores so too; the factors of other
products are rounded by hand (`benchmarks.rounding`).

Two runs say how much a difference means. `another form` is the same run in float32 with another
`train.convolution`, which rounds otherwise in the last bits and is as right. `another seed` is
another run. A row `agrees` with float32 when, of each of TAGS, its root mean square difference from
float32 over the windows of WINDOW steps is not above that of `another seed`; one that is not finite
does not agree. float32 and `another seed` always run; --rows picks the others.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.rounding import rounded
from benchmarks.step import machine
from configs import dsprites
from ibgan_jax import distributed
from ibgan_jax.data.order import Order
from ibgan_jax.networks import formulation
from ibgan_jax.reports.spread import spread_figure
from ibgan_jax.training.population import Population, Program, Programs
from ibgan_jax.training.run import Run, build
from ibgan_jax.training.step import make_train_steps

TAGS = ("loss/discriminator", "bounds/lower", "bounds/upper")
OTHERWISE, ANOTHER = "another form", "another seed"
WINDOW = 20  # steps that a value is the mean of


def program_at(run: Run, precision: str, form: str = formulation.AUTO) -> Program:
    """The program that trains the run at a precision, or does by hand what this device cannot."""
    run = dataclasses.replace(run, config=run.config.copy_and_resolve_references())
    by_hand = precision != distributed.EXACT and distributed.devices()[0].platform == "cpu"
    run.config.train.precision = distributed.EXACT if by_hand else precision
    run.config.train.convolution = form
    program = Programs(run).of(1, 0)
    if not by_hand:
        return program
    state, hparams = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), (run.state_template(), run.hparams)
    )
    batch = run.dataset.lookup(np.zeros((1, program.steps, program.batch_size), int))
    steps = make_train_steps(run.model, run.dataset.decode)
    shapes = state, program.arrays, batch, hparams
    with formulation.using(formulation.choose("cpu", form, precision)):
        compiled = rounded(steps, distributed.PRECISIONS[precision], *shapes)
    return dataclasses.replace(program, compiled=compiled)


def curves(run: Run, program: Program) -> dict[str, np.ndarray]:
    """Each of TAGS, [steps]."""
    population = Population(program, [run.create_state()], [run.hparams])
    orders, train = [Order(run.dataset.size, run.config.seed)], run.config.train
    numbers = (0, train.steps, program.steps, train.batch_size, population.batch_part)
    for batches in run.dataset.batches(orders, *numbers):
        population.advance(batches)
    measured = population.fetch()[0]
    return {tag: measured[tag] for tag in TAGS}


def names() -> list[str]:
    """Of the rows, in their order; the first two are what the others are judged by."""
    return [
        distributed.EXACT,
        ANOTHER,
        *(name for name in distributed.PRECISIONS if name != distributed.EXACT),
        OTHERWISE,
    ]


def rows(
    directory: Path, width: int, steps: int, wanted: Sequence[str] = ()
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(name, curves) of float32, of another seed, and of those `wanted`; without any, of all."""
    config = dsprites.get_config()
    config.dataset.dir = str(directory)
    config.network.update({"generator_width": width, "discriminator_width": width})
    config.train.steps = steps
    config.train.update({f"{key}_every": steps for key in ("log", "evaluate", "checkpoint")})
    run = build(config)
    exact = program_at(run, distributed.EXACT)
    yield distributed.EXACT, curves(run, exact)
    another = run.of(copy.deepcopy(config))
    another.config.seed += 1
    yield ANOTHER, curves(another, exact)
    on_cpu = distributed.devices()[0].platform == "cpu"
    for name in names()[2:]:
        if wanted and name not in wanted:
            continue
        if name == OTHERWISE:
            form = "patches" if on_cpu else "filtered"  # than what is chosen
            yield name, curves(run, program_at(run, distributed.EXACT, form))
        else:
            yield name, curves(run, program_at(run, name))


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


def agrees(row: dict[str, dict[str, float]], another: dict[str, dict[str, float]]) -> bool:
    """Whether a row is as near to float32 as another seed is, in each of TAGS."""
    return all(row[tag]["rms"] <= another[tag]["rms"] for tag in TAGS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--width", type=int, default=16, help="g = d of the networks")
    parser.add_argument("--dir", type=Path, default=Path("data"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--rows", default="", help="only these, separated by commas")
    options = parser.parse_args()
    if options.steps < WINDOW:
        parser.error(f"--steps={options.steps} must be {WINDOW} or more")
    found: dict[str, Any] = {
        "machine": machine() | {"width": options.width, "steps": options.steps},
        "rows": {},
    }
    made: dict[str, dict[str, np.ndarray]] = {}
    wanted = [name for name in options.rows.split(",") if name]
    if unknown := [name for name in wanted if name not in names()]:
        parser.error(f"no row {unknown[0]!r}; there are: {', '.join(names())}")
    print(f"{'row':14}" + "".join(f"{tag:>34}" for tag in TAGS))
    print(f"{'':14}" + f"{'first':>12}{'rms':>10}{'end':>12}" * len(TAGS) + "   agrees")
    for name, curve in rows(options.dir, options.width, options.steps, wanted):
        made[name] = curve
        row = {tag: compared(curve[tag], made[distributed.EXACT][tag]) for tag in TAGS}
        cells = (f"{x['first']:12.1e}{x['rms']:10.4f}{x['end']:12.4f}" for x in row.values())
        judged = name not in (distributed.EXACT, ANOTHER)
        verdict = {"agrees": agrees(row, found["rows"][ANOTHER])} if judged else {}
        found["rows"][name] = row | verdict
        print(f"{name:14}" + "".join(cells) + f"   {verdict.get('agrees', '')}", flush=True)
        if options.json:  # after every row, so that an interruption costs that row alone
            options.json.write_text(json.dumps(found, indent=2) + "\n")
    if options.figure:
        records = {name: [_records(curve)] for name, curve in made.items()}
        spread_figure(options.figure, records, TAGS[0])


def _records(curve: dict[str, np.ndarray]) -> list[dict[str, float]]:
    means = {tag: windows(values) for tag, values in curve.items()}
    return [
        {"step": (i + 1) * WINDOW, **{tag: float(x[i]) for tag, x in means.items()}}
        for i in range(len(means[TAGS[0]]))
    ]


if __name__ == "__main__":
    main()
