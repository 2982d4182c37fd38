"""Times the step of jobs of several processes on this machine, at one global batch.

    python -m benchmarks.processes [--processes=1,2,4] [--width=8] [--rounds=5] [--json=FILE]

Each process has one device. On one machine they share its cores, so this shows what talking to
each other costs, not what more machines bring.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.step import machine, random_records
from ibgan_jax import config as configs
from ibgan_jax import distributed, job
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.order import Order
from ibgan_jax.data.sprite_dataset import SpriteDataset
from ibgan_jax.training.population import Population, Programs
from ibgan_jax.training.run import Run

STEPS = 10


def times(width: int, rounds: int) -> list[float]:
    """Milliseconds a step of each dispatch, in every process of the job."""
    config = configs.base("benchmark", "ibgan")
    config.network.generator_width = config.network.discriminator_width = width
    config.train.steps = STEPS * (rounds + 1)
    config.train.update({f"{key}_every": STEPS for key in ("log", "evaluate", "checkpoint")})
    mesh = distributed.mesh_for(1)
    sharding = distributed.replicated(mesh)
    feed = ResidentFeed(random_records(), sharding=sharding)
    dataset = SpriteDataset(feed, "random", ("index",), (4096,), sharding=sharding)
    numbers = {key: np.float32(x) for key, x in config.hparams.items()}
    hparams = distributed.place(numbers, sharding)
    run = Run(config, configs.make_model(config), dataset, mesh, hparams)
    program = Programs(run).of(1, 0)
    population = Population(program, [run.create_state()], [hparams])
    part, size = population.batch_part, config.train.batch_size
    found = []
    batches = dataset.batches([Order(4096, 0)], 0, config.train.steps, program.steps, size, part)
    for batch in batches:
        start = time.perf_counter()
        population.advance(batch)
        population.fetch()
        found.append(1e3 * (time.perf_counter() - start) / program.steps)
    return found[1:]


def measured(processes: int, options: argparse.Namespace) -> dict[str, Any]:
    """Median and minimum of a job of so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-m", __spec__.name, f"--width={options.width}"]
    members = [
        subprocess.Popen(
            [*command, f"--rounds={options.rounds}", f"--member={i},{processes},{port}"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for i in range(processes)
    ]
    found = next(json.loads(member.communicate()[0].splitlines()[-1]) for member in members)
    return {
        "processes": processes,
        "median_ms": statistics.median(found),
        "min_ms": min(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--width", type=int, default=8, help="g = d of the networks")
    parser.add_argument("--rounds", type=int, default=5, help="dispatches of 10 steps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--member", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.member:
        process, processes, port = map(int, options.member.split(","))
        if processes > 1:
            job.start(f"127.0.0.1:{port}", processes, process)
        print(json.dumps(times(options.width, options.rounds)))
        job.end()
        return
    rows = [measured(int(count), options) for count in options.processes.split(",")]
    found = {"machine": machine() | {"width": options.width}, "rows": rows}
    for row in rows:
        print(
            "{processes} processes: {median_ms:.1f} ms a step, at least {min_ms:.1f}".format(**row)
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
