"""Everything that is measured, as one table.

    python -m benchmarks [--dir=data] [--population=4,10,32] [--rounds=5] [--json=FILE]

First the rows of `benchmarks.step`, interleaved; then, once each: the renderer, the two ways to
feed the step, the FactorVAE score of an untrained VAE and IB-GAN (what it takes is encoding), and
the memory of a population of ten. What is not installed is left out. Half an hour on two cores;
nothing else should run. On a GPU `benchmarks.gpu` is the one to begin with.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks import step
from ibgan_jax import config as configs
from ibgan_jax import data, distributed
from ibgan_jax.data import sprites
from ibgan_jax.data.order import Order
from ibgan_jax.errors import UserError
from ibgan_jax.models.base import ByPlayer
from ibgan_jax.training import evaluation
from ibgan_jax.training.run import Run

FEEDING = {"steps": 200, "at_once": 10, "batch": 64}


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes, what it leaves on the device included."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def feed(dataset: data.dataset.Dataset) -> None:
    """Draws and decodes batches as training does, and throws them away."""
    decode = jax.jit(lambda arrays, batch: dataset.decode(arrays, batch).sum())
    numbers = (0, FEEDING["steps"], FEEDING["at_once"], FEEDING["batch"])
    for batch in dataset.batches([Order(dataset.size, 0)], *numbers):
        jax.block_until_ready(decode(dataset.arrays, batch))


def score(run: Run, variables: ByPlayer) -> float:
    """The FactorVAE score as training takes it."""
    return evaluation.score(run, variables, 0, print)[1]


def once(directory: Path) -> Iterator[tuple[str, float, str]]:
    """(what, number, unit) of all that is measured once."""
    yield "render and pack the data set", seconds(sprites.render_packed_all), "s"
    resident = data.load("dsprites", "resident", directory)
    sources = [resident]
    try:
        sources.append(data.load("dsprites", "stream", directory))
    except UserError as error:  # what reads it need not be installed
        print(f"feeding, stream: left out, {error}", flush=True)
    images = FEEDING["steps"] * FEEDING["batch"]
    for dataset in sources:
        feed(dataset)
        yield f"feeding, {dataset.source}", images / seconds(lambda d=dataset: feed(d)), "images/s"
    for name in ("vae", "ibgan"):
        config = configs.base("benchmark", name)
        run = Run(config, configs.make_model(config), resident, distributed.mesh_for(1), {})
        variables = run.model.init(jax.random.key(0))
        yield f"FactorVAE score, {name}", seconds(lambda r=run, v=variables: score(r, v)), "s"


def memory() -> dict[str, Any]:
    """What `benchmarks.memory` finds, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.json"
        command = [sys.executable, "-m", "benchmarks.memory", f"--json={path}"]
        # This process holds memory of the device too: the other takes only what it needs.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        return json.loads(path.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dir", type=Path, default=Path("data"))
    parser.add_argument("--population", default="4,10,32", help="sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = [int(size) for size in options.population.split(",") if size]
    found = {"machine": step.machine(), "rows": {}, "once": []}

    def keep() -> None:
        """After every part, so that an interruption costs that part alone."""
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n")

    found["rows"] = step.measure(16, 10, options.rounds, sizes, ())
    step.show(found)
    keep()
    for what, number, unit in once(options.dir):
        print(f"{what:32}{number:12,.1f} {unit}", flush=True)
        found["once"].append({"what": what, "value": number, "unit": unit})
        keep()
    found["memory"] = memory()
    print(f"{'memory of ten members, peak':32}{found['memory']['measured_mib']:12,.0f} MiB")
    print(f"{'the same, predicted':32}{found['memory']['predicted_mib']:12,.0f} MiB")
    keep()


if __name__ == "__main__":
    main()
