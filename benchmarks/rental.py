"""Chooses what a rented GPU trains next, and how: the arguments that launch.py gets.

    python -m benchmarks.rental --measured=FILE [--plan=scripts/gpu_plan.txt] [--results=results]
        [--agreement=results/benchmarks/precision-cpu2.json]

Prints the name of the first unfinished item of the plan, then the arguments, one a line. The item's
seeds that are in `results` at their last step are left out. The precision is the fastest that
`benchmarks.gpu` measured; 16 bits only where the first 1,000 steps in 16 bits agree with float32 as
two seeds agree (`benchmarks.precision`), else TF32.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ibgan_jax import config as configs
from ibgan_jax.errors import UserError
from ibgan_jax.networks import formulation

SEEDS = tuple(range(10))
# What a run is measured by in minutes, not hours: few scores, no pictures, long dispatches.
SETTINGS = {
    "train.steps_per_dispatch": 50,
    "train.log_every": 500,
    "train.evaluate_every": 5_000,
    "train.light": True,
    "population.at_once": -1,
}


def items(plan: Path) -> Iterator[tuple[str, str]]:
    """(name, config) of each line of a plan.

    Raises:
      UserError: a line is neither a comment nor NAME CONFIG.
    """
    for number, line in enumerate(plan.read_text().splitlines(), 1):
        words = line.partition("#")[0].split()
        if words and len(words) != 2:
            raise UserError(f"{plan}, line {number}: {line!r} is not NAME CONFIG")
        if words:
            yield words[0], words[1]


def load(config: str) -> Any:
    """The config of PATH[:MODEL], with SEEDS where it names no seeds of its own."""
    path, _, model = config.partition(":")
    loaded = runpy.run_path(path)["get_config"](model)
    loaded.population.seeds = loaded.population.seeds or SEEDS
    return loaded


def unfinished(config: Any, folder: Path) -> tuple[int, ...]:
    """The seeds of which `folder` lacks a member at its last step."""
    left = set()
    for name, member in configs.members(config):
        scores = folder / name / "scores.json"
        step = json.loads(scores.read_text())["run"]["checkpoint_step"] if scores.exists() else -1
        if step < member.train.steps:
            left.add(member.seed)
    return tuple(sorted(left))


def way(measured: dict[str, Any], agreement: dict[str, Any]) -> dict[str, Any]:
    """Chooses the settings of the fastest way to train that is accurate enough.

    Args:
      measured: JSON of `benchmarks.gpu`; its `rows` have a time or say why they have none.
      agreement: JSON of `benchmarks.precision`; `rows` say whether they agree with float32.

    Returns:
      train.precision and train.convolution. They are TF32 and the platform's own form where nothing
      that may be used was measured: a rental must not be lost to a measurement that failed.
    """
    verdicts = agreement.get("rows", {})
    usable = [
        row
        for row in measured["rows"]
        if "ms_a_member" in row
        and (
            row["precision"] not in formulation.STORAGE
            or verdicts.get(row["precision"], {}).get("agrees")
        )
    ]
    if not usable:
        return {"train.precision": "tf32", "train.convolution": formulation.AUTO}
    fastest = min(usable, key=lambda row: row["ms_a_member"])
    return {
        "train.precision": fastest["precision"],
        "train.convolution": fastest["convolution"],
    }


def arguments(plan: Path, results: Path, settings: dict[str, Any]) -> tuple[str, list[str]] | None:
    """The first unfinished item's name and launch.py's arguments for it; None when all are done.

    Raises:
      UserError: the plan cannot be read.
    """
    for name, path in items(plan):
        config = load(path)
        if seeds := unfinished(config, results / name):
            steps = config.train.steps
            chosen = {**SETTINGS, "train.checkpoint_every": steps, **settings}
            flags = [f"--config.{key}={value}" for key, value in chosen.items()]
            return name, [f"--config={path}", f"--config.population.seeds={seeds}", *flags]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--measured", type=Path, required=True)
    parser.add_argument("--plan", type=Path, default=Path("scripts/gpu_plan.txt"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument(
        "--agreement", type=Path, default=Path("results/benchmarks/precision-cpu2.json")
    )
    options = parser.parse_args()
    try:
        settings = way(
            json.loads(options.measured.read_text()), json.loads(options.agreement.read_text())
        )
        chosen = arguments(options.plan, options.results, settings)
    except (UserError, OSError, ValueError, KeyError) as error:
        sys.exit(f"error: {error}")
    if chosen is None:
        sys.exit("every item of the plan is finished")
    name, flags = chosen
    print(name, *flags, sep="\n")


if __name__ == "__main__":
    main()
