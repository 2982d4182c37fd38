"""Times IB-GAN's step on images of CelebA's size, streamed from the disk and lying on the device.

    python -m benchmarks.celeba [--width=16] [--images=4096] [--rounds=7] [--json=FILE]

The recipe is that of configs/celeba.py, of --width=64 if given so (on two cores a step then takes
seconds). Both rows train as `launch.py` does, ten steps a dispatch, on the same made-up images, in
another order each round.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.images import prepared_folder, quiet
from benchmarks.step import machine
from configs import folder as experiment
from ibgan_jax.data.order import Order
from ibgan_jax.training.population import Population, Programs
from ibgan_jax.training.run import build

SOURCES = ("resident", "stream")
STEPS = 10


def dispatches(source: str, directory: Path, width: int, rounds: int) -> Callable[[], None]:
    """A function that takes the next ten steps of a run fed from `source`."""
    config = experiment.get_config()
    config.dataset.update({"source": source, "dir": str(directory)})
    config.network.update({"generator_width": width, "discriminator_width": width})
    config.train.steps = STEPS * (rounds + 1)
    config.train.update({f"{key}_every": STEPS for key in ("log", "evaluate", "checkpoint")})
    run = build(config, quiet)
    program = Programs(run).of(1, 0)
    population = Population(program, [run.create_state()], [run.hparams])
    order, size = Order(run.dataset.size, 0), config.train.batch_size
    part = population.batch_part
    batches = run.dataset.batches([order], 0, config.train.steps, program.steps, size, part)

    def advance() -> None:
        population.advance(next(batches))
        population.fetch()

    return advance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=16, help="g = d of the networks")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with prepared_folder(options.images, 64) as (directory, _, _):
        rows = {s: dispatches(s, directory, options.width, options.rounds) for s in SOURCES}
        times: dict[str, list[float]] = {source: [] for source in SOURCES}
        turns = random.Random(0)
        for advance in rows.values():
            advance()
        for _ in range(options.rounds):
            for source in turns.sample(SOURCES, len(SOURCES)):
                start = time.perf_counter()
                rows[source]()
                times[source].append(1e3 * (time.perf_counter() - start) / STEPS)
    found = {
        "machine": machine() | {"width": options.width, "images": options.images},
        "rows": {
            source: {"median_ms": statistics.median(taken), "min_ms": min(taken)}
            for source, taken in times.items()
        },
    }
    for source, row in found["rows"].items():
        print(f"{source:10}{row['median_ms']:10.1f} ms a step, at least {row['min_ms']:.1f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
