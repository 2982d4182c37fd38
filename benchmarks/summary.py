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

BEST_AGAIN = "best, fresh votes"
MINUTES = "minutes"
COLUMNS = ("best", BEST_AGAIN, "median", "last", "fresh votes", "active dimensions", MINUTES)


def row(run: Path) -> dict[str, float]:
    """What a table shows of a run; a run of an older version has less of it."""
    workdir = Workdir(run)
    scores, best = workdir.read_scores(), workdir.best.read_scores()
    training = scores["training"]
    if best is None and training.get("best_step") == scores["run"]["checkpoint_step"]:
        best = scores  # the newest checkpoint is the best one
    made = {
        "best": training["best"],
        "median": training["median"],
        "last": training["last"],
        "fresh votes": scores["factor_vae"]["value"],
        "active dimensions": scores["active_dimensions"]["value"],
    }
    if best is not None:
        made[BEST_AGAIN] = best["factor_vae"]["value"]
    if workdir.timing.exists():
        made[MINUTES] = json.loads(workdir.timing.read_text())["wall_s"] / 60
    return made


def copy(run: Path, out: Path, figures: bool) -> None:
    """Copies records and, where asked, figures of a run and of its best checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "scores.json", "metrics.jsonl", "timing.json", "best/scores.json"):
        if (run / name).exists():
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copy(run / name, out / name)
    for folder in (".", "best") if figures else ():
        for path in sorted((run / folder / "figures").glob("*.png")):
            shutil.copy(path, out / folder / path.name)


def markdown(rows: dict[str, dict[str, float]]) -> str:
    """A table with a line a seed; columns that some run does not have are left out."""
    columns = [c for c in COLUMNS if all(c in values for values in rows.values())]
    lines = [f"| seed | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for seed, values in rows.items():
        lines.append(f"| {seed} | " + " | ".join(f"{values[c]:.3g}" for c in columns) + " |")
    if len(rows) > 1:
        known = [[values[c] for values in rows.values()] for c in columns]
        cells = [f"**{np.mean(x):.2f}** +- {np.std(x, ddof=1):.2f}" for x in known]
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
