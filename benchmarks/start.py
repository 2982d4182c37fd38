"""Times a cold start: from the command to the first steps, with the data set's cache in place.

    python -m benchmarks.start [--dir=data] [--rounds=3] [--json=FILE]

The run is that of configs/dsprites.py. Each round is a new process of launch.py in an empty
workdir, which is killed as it says that its first dispatch (ten steps) is done; so imports, the
data set, compiling and these steps are in it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.step import machine
from ibgan_jax import data

ROOT = Path(__file__).resolve().parents[1]
LAUNCH, CONFIG = ROOT / "launch.py", ROOT / "configs" / "dsprites.py"
STEPS = 10


def start(directory: Path) -> float:
    """Seconds until the first line of a run that logs its first dispatch."""
    with tempfile.TemporaryDirectory() as workdir:
        settings = {"dataset.dir": directory, "train.log_every": STEPS}
        words = [f"--config.{key}={value}" for key, value in settings.items()]
        command = [sys.executable, LAUNCH, f"--config={CONFIG}", f"--workdir={workdir}", *words]
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if line.startswith(f"step {STEPS}/"):
                    seconds = time.perf_counter() - begin
                    process.kill()
                    return seconds
        raise SystemExit(f"it ended with {process.returncode} before step {STEPS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data.load("dsprites", "resident", options.dir)  # renders and keeps it, if it is not there yet
    taken = [start(options.dir) for _ in range(options.rounds)]
    found = {
        "machine": machine() | {"config": f"configs/{CONFIG.name}", "steps": STEPS},
        "seconds": [round(seconds, 1) for seconds in taken],
        "median_s": round(statistics.median(taken), 1),
    }
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
