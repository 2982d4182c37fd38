"""Gathers finished runs of one experiment into results/NAME/, from which README's tables come.

    python -m benchmarks.summary runs/quickstart-ibgan-seed* --out=results/quickstart --command=...

For each run it copies config.json, scores.json and metrics.jsonl, for the first one its figures
too, and writes summary.json and summary.md with mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
from pathlib import Path

import numpy as np

from ibgan_jax.training.workdir import Workdir

COLUMNS = ("best", "median", "last", "fresh votes", "active dimensions")


def row(run: Path) -> dict[str, float]:
    scores = Workdir(run).read_scores()
    training = scores["training"]
    return {
        "best": training["best"],
        "median": training["median"],
        "last": training["last"],
        "fresh votes": scores["factor_vae"]["value"],
        "active dimensions": scores["active_dimensions"]["value"],
    }


def copy(run: Path, out: Path, figures: bool) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "scores.json", "metrics.jsonl"):
        shutil.copy(run / name, out / name)
    if figures:
        for path in sorted((run / "figures").glob("*.png")):
            shutil.copy(path, out / path.name)


def markdown(rows: dict[str, dict[str, float]]) -> str:
    lines = [f"| seed | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for seed, values in rows.items():
        lines.append(f"| {seed} | " + " | ".join(f"{values[c]:.3g}" for c in COLUMNS) + " |")
    mean = [np.mean([v[c] for v in rows.values()]) for c in COLUMNS]
    if len(rows) > 1:
        spread = [np.std([v[c] for v in rows.values()], ddof=1) for c in COLUMNS]
        cells = [f"**{m:.2f}** +- {s:.2f}" for m, s in zip(mean, spread, strict=True)]
        lines.append(f"| mean +- s.d. | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--command", required=True, help="that made the runs, seed as SEED")
    options = parser.parse_args()
    rows, commits = {}, {}
    for number, run in enumerate(options.runs):
        recorded = json.loads((run / "config.json").read_text())
        seed = recorded["config"]["seed"]
        copy(run, options.out / f"seed{seed}", figures=number == 0)
        rows[str(seed)] = row(run)
        commits[str(seed)] = recorded["commit"]
    summary = {
        "command": options.command,
        "commits": commits,
        "device": recorded["device"],
        "versions": recorded["versions"],
        "date": datetime.date.today().isoformat(),
        "seeds": rows,
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (options.out / "summary.md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
