"""Tables of results/trials: what short runs of many recipes scored.

A file there holds trials that ran on the same device: a line each, with the trial's settings, seed
and curve. Those of a CPU were chosen one by one. Those of a GPU were drawn at random, many at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import markdown, read
from ibgan_jax.metrics import rank_correlation

Trial = dict[str, Any]
SEEDS = 3  # A recipe with fewer has no line of its own.
#: What every short trial of a GPU has at least, and the long ones have twice as much or more.
STEPS = 18_000
#: The settings that were drawn at random, and how a value is shown.
DRAWN: dict[str, Callable[[float], str]] = {
    "lr_generator": "{:.1e}".format,
    "lr_discriminator": "{:.1e}".format,
    "lr_reconstructor": "{:.1e}".format,
    "momentum": "{:.1f}".format,
    "information": "{:.2f}".format,
    "beta": "{:.2f}".format,
    "beta_late": "{:.2f}".format,
    "noise_start": "{:.2f}".format,
    "noise_end": "{:.2f}".format,
    "noise_steps": "{:,.0f}".format,
    "noise_late_at_most": "{:.2f}".format,
    "late_from": "{:,.0f}".format,
    "z_dim": "{:.0f}".format,
    "arc": "{:.0f}".format,
}


def _of(results: Path, pattern: str) -> list[list[Trial]]:
    return [read(path)["trials"] for path in sorted(results.glob(f"trials/{pattern}"))]


def _best(trial: Trial, steps: float = np.inf) -> float:
    return max(point["score"] for point in trial["curve"] if point["step"] <= steps)


def one_by_one(results: Path) -> str:
    """One line for each trial on a CPU: what differs from the first of its series, and its scores.

    The score is the highest over the trial's evaluations, with the step that it was reached at; the
    dimensions are those active there.
    """
    lines = [
        ["trial", "seed", "settings that differ", "steps", "best", "at step", "active", "last"]
    ]
    for series in _of(results, "*-cpu*.json"):
        first = series[0]["settings"]
        for trial in series:
            differing = {k: v for k, v in trial["settings"].items() if v != first.get(k)}
            gone = {k: "-" for k in first if k not in trial["settings"]}
            shown = first if trial is series[0] else {**differing, **gone}
            best = max(trial["curve"], key=lambda point: point["score"])
            last = trial["curve"][-1]
            numbers = [f"{last['step']:,}", f"{best['score']:.2f}", f"{best['step']:,}"]
            tail = [str(best["active"]), f"{last['score']:.2f}"]
            settings = ", ".join(f"{k} {v}" for k, v in shown.items()) or "another seed"
            lines.append([trial["name"], str(trial["seed"]), settings, *numbers, *tail])
    return markdown(lines)


def recipes(results: Path) -> str:
    """One line for each recipe that a GPU trained with SEEDS seeds or more, the best ones first."""
    made = itertools.chain(*_of(results, "*-h200*.json"))
    by_recipe: dict[tuple, list[Trial]] = {}
    for trial in made:
        networks, steps = trial["settings"]["networks"], trial["steps"]
        drawn = tuple((k, show(trial["settings"][k])) for k, show in DRAWN.items())
        by_recipe.setdefault((networks, steps >= 2 * STEPS, drawn), []).append(trial)
    lines = [["networks", *DRAWN, "steps", "seeds", "best", "each"]]
    groups = [(key, group) for key, group in by_recipe.items() if len(group) >= SEEDS]
    for (networks, _, drawn), group in sorted(
        groups, key=lambda x: -np.mean([_best(trial) for trial in x[1]])
    ):
        scores = [_best(trial) for trial in group]
        steps = sorted({f"{trial['steps']:,}" for trial in group})
        spread = f"**{np.mean(scores):.2f}** +- {np.std(scores, ddof=1):.2f}"
        each = ", ".join(f"{t['name']} {_best(t):.2f}" for t in group)
        cells = [shown for _, shown in drawn]
        lines.append([networks, *cells, " or ".join(steps), str(len(group)), spread, each])
    return markdown(lines)


def settings(results: Path) -> str:
    """The mean score of all short GPU trials in each fifth of a setting's values.

    The trials have pixel shuffle. What counts is the best score within the first STEPS steps.
    """
    short = [
        trial
        for trial in itertools.chain(*_of(results, "*-h200*.json"))
        if trial["settings"]["networks"] == "pixel_shuffle" and STEPS <= trial["steps"] < 2 * STEPS
    ]
    scores = np.array([_best(trial, STEPS) for trial in short])
    lines = [["setting", "lowest fifth", "second", "third", "fourth", "highest fifth"]]
    for name, show in DRAWN.items():
        values = np.array([float(trial["settings"][name]) for trial in short])
        few = np.unique(values)
        if len(few) > 5:
            edges = np.quantile(values, np.linspace(0, 1, 6))
            place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, 4)
        else:  # a choice of a few
            place = np.searchsorted(few, values)
        cells = [
            f"{show(values[place == i].min())} to {show(values[place == i].max())}: "
            f"{scores[place == i].mean():.2f}"
            if len(few) > 5
            else f"{show(few[i])}: {scores[place == i].mean():.2f}"
            for i in range(min(5, len(few)))
        ]
        lines.append([name, *cells, *[""] * (5 - len(cells))])
    return markdown(lines)


def unlabelled(results: Path) -> str:
    """One line for each ranking without labels: what it chooses, and how it agrees with the score.

    The members are trials of different recipes. Their score is a FactorVAE score with all votes.
    """
    lines = [["ranking", "members", "chooses", "its score", "best score", "rank correlation"]]
    for path in sorted(results.glob("trials/*-unlabelled.json")):
        made = read(path)
        scores = made["factor_vae"]
        for name in ("udr", "model_centrality"):
            values = made[name]["values"]
            best = int(np.argmax(values))
            agreement = rank_correlation(values, scores)
            cells = [f"{scores[best]:.2f}", f"{max(scores):.2f}", f"{agreement:+.2f}"]
            lines.append([name, str(len(scores)), made["names"][best], *cells])
    return markdown(lines)


def mixture(results: Path) -> str:
    """One line for each trial whose mixture of factors was measured: with and without moved images.

    The columns are those that the file of the measurements explains.
    """
    head = "trial, score, active, r read back, size with distance from the middle, x, y, size"
    lines = [head.split(", ")]
    for path in sorted(results.glob("trials/*-mixture.json")):
        for trial in read(path)["trials"]:
            shares = [f"{trial['purity'][factor]:.2f}" for factor in ("x", "y", "size")]
            values = [trial[key] for key in ("score", "read_back", "size_with_distance")]
            score, read_back, distance = (f"{value:.2f}" for value in values)
            lines.append([trial["name"], score, str(trial["active"]), read_back, distance, *shares])
    return markdown(lines)
