"""Compares the memory that a population is predicted to need with what it comes to.

    python -m benchmarks.memory [--members=10] [--steps=4] [--json=FILE]

Trains a population of configs/dsprites.py for a few steps, to its first checkpoint, in a temporary
folder; scoring and reports are left out. The peak is what JAX held of the fullest device at a time;
on a CPU, the process's resident memory.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import tempfile
from pathlib import Path
from unittest import mock

import jax

from configs import dsprites
from ibgan_jax import config as configs
from ibgan_jax.errors import UserError
from ibgan_jax.training import loop, reporting
from ibgan_jax.training.course import Course
from ibgan_jax.training.workdir import Workdir, environment


def peak_mib() -> float:
    """The most memory that was in use at a time, in MiB.

    Raises:
      UserError: an accelerator that does not say, as with some allocators.
    """
    devices = jax.local_devices()
    if devices[0].platform == "cpu":
        # Not getrusage: a program that another one starts inherits that one's peak.
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    figures = [device.memory_stats() for device in devices]
    if not all(figures):
        raise UserError("this device does not say how much of its memory is in use")
    return max(stats["peak_bytes_in_use"] for stats in figures) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = dsprites.get_config()
    config.population.seeds = tuple(range(options.members))
    config.train.steps = options.steps
    lines: list[str] = []
    nothing = mock.patch.object(Course, "_evaluate", lambda *_: {})
    no_report = mock.patch.object(reporting, "finish", lambda *_: None)
    with tempfile.TemporaryDirectory() as folder, nothing, no_report:
        runs = [(run, Workdir(Path(folder) / name)) for name, run in configs.members(config)]
        loop.train_together(runs, lines.append)
    told = next(line for line in lines if "members of" in line)
    predicted = float(re.search(r"([\d,]+) MiB with", told)[1].replace(",", ""))
    measured = peak_mib()
    result = {
        "said": told,
        "predicted_mib": predicted,
        "measured_mib": round(measured),
        "predicted_over_measured": round(predicted / measured, 3),
        "members": options.members,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "date": datetime.date.today().isoformat(),
        "commit": environment()["commit"],
    }
    print(json.dumps(result, indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
