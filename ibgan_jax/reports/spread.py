"""Many runs in one picture: means and deviations over seeds, against iterations or a number.

Records are those of `curves`. A band, or bar, is one standard deviation over seeds to each side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibgan_jax.reports.curves import (
    SCORE_NAMES,
    Label,
    Records,
    best_and_median,
    end_labels,
    score_axis,
    series,
    step_axis,
)
from ibgan_jax.reports.figures import ACCENT, INK, PALETTE, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BOUNDS = {
    "bounds/upper": "upper bound $I_U$, nats",
    "bounds/lower": "lower bound $I_L$, nats",
    "elbo": "ELBO, nats",
}
OF_SCORES = {"best": INK, "median": PALETTE[0], "last": ACCENT}


def mean_and_deviation(runs: Sequence[Records], key: str) -> tuple[np.ndarray, ...]:
    """Steps, means and deviations (n - 1; 0 of one run), float [N] each, of `key` over runs.

    A step counts with the runs that have a value there.
    """
    columns = [dict(zip(*series(records, key), strict=True)) for records in runs]
    steps = sorted(set().union(*columns))
    values = [np.array([c[step] for c in columns if step in c]) for step in steps]
    deviations = [np.std(v, ddof=1) if len(v) > 1 else 0.0 for v in values]
    return np.array(steps), np.array([np.mean(v) for v in values]), np.array(deviations)


def spread_figure(
    path: str | Path, groups: Mapping[str, Sequence[Records]], score_key: str
) -> None:
    """Draws bounds and score over iterations, a curve for each group of runs.

    Args:
      path: the PNG to write.
      groups: label -> the records of each run, which differ in their seeds.
      score_key: the score's tag; panels of what no run recorded are left out.
    """
    titles = {**BOUNDS, score_key: SCORE_NAMES.get(score_key, score_key)}
    runs = [records for group in groups.values() for records in group]
    keys = [key for key in titles if any(len(series(records, key)[0]) for records in runs)]
    height = 2.5 * max(len(keys), 1) + 0.4
    with canvas(path, 8.6, height) as figure:
        panels = figure.subplots(max(len(keys), 1), 1, sharex=True, squeeze=False)[:, 0]
        figure.subplots_adjust(
            left=0.075, right=0.8, top=1 - 0.3 / height, bottom=0.5 / height, hspace=0.25
        )
        for axes, key in zip(panels, keys, strict=False):
            axes.set_title(titles[key])
            _curves(axes, groups, key)
            step_axis(axes, [record for records in runs for record in records])
        panels[-1].set_xlabel("iteration")


def _curves(axes: Axes, groups: Mapping[str, Sequence[Records]], key: str) -> None:
    labels: list[Label] = []
    for colour, (label, runs) in zip(_colours(len(groups)), groups.items(), strict=True):
        steps, means, deviations = mean_and_deviation(runs, key)
        if not len(steps):
            continue
        axes.fill_between(
            steps, means - deviations, means + deviations, color=colour, alpha=0.15, linewidth=0
        )
        marker = "o" if len(steps) < 3 else None  # a single point is no line
        axes.plot(steps, means, color=colour, linewidth=1.3, marker=marker, markersize=4)
        labels.append((means[-1], label, colour))
    if key in SCORE_NAMES:
        score_axis(axes, key)
    end_labels(axes, labels)


def _colours(count: int) -> list:
    """Told apart where there are few, else in order from dark to light."""
    if count <= len(PALETTE):
        return list(PALETTE[:count])
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.9, count)))


def sweep_figure(
    path: str | Path, runs: Mapping[float, Sequence[Records]], name: str, score_key: str
) -> None:
    """Draws bounds and scores against a hyperparameter, as Fig. 3 of Jeon et al. (2021).

    Args:
      path: the PNG to write.
      runs: the hyperparameter's value -> the records of each run, which differ in their seeds.
      name: the hyperparameter's.
      score_key: the score's tag.

    Bounds are medians over the iterations of a run; the last panel has the best and the last score
    beside the median. What is drawn is the mean over seeds with one standard deviation.
    """
    values = np.array(sorted(runs))
    keys = [k for k in BOUNDS if all(len(series(r, k)[0]) for v in values for r in runs[v])]
    panels = [(BOUNDS[key], {"": [_medians(runs[v], key) for v in values]}) for key in keys]
    scores = [[best_and_median(records, score_key) for records in runs[v]] for v in values]
    found = [[score[1:] for score in row if score] for row in scores]  # best, median, last
    score_name = SCORE_NAMES.get(score_key, score_key)
    if all(found):
        by = {n: [[s[i] for s in row] for row in found] for i, n in enumerate(OF_SCORES)}
        panels += [(f"{score_name}, median", {"": by["median"]}), (score_name, by)]
    rows = max(1, -(-len(panels) // 2))
    height = 2.6 * rows + 0.3
    with canvas(path, 9.6, height) as figure:
        drawn = figure.subplots(rows, 2, squeeze=False).ravel()
        figure.subplots_adjust(
            left=0.075, right=0.92, top=1 - 0.3 / height, bottom=0.5 / height,
            wspace=0.3, hspace=0.42,
        )  # fmt: skip
        for axes, (title, lines) in zip(drawn, panels, strict=False):
            axes.set_title(title)
            axes.set_xlabel(name)
            _against(axes, values, lines, score_key if title.startswith(score_name) else "")
        for axes in drawn[len(panels) :]:
            axes.set_visible(False)


def _medians(runs: Sequence[Records], key: str) -> list[float]:
    return [float(np.median(series(records, key)[1])) for records in runs]


def _against(axes: Axes, values: np.ndarray, lines: Mapping[str, Sequence], score_key: str) -> None:
    labels: list[Label] = []
    for name, columns in lines.items():
        colour = OF_SCORES.get(name, PALETTE[0])
        means = [np.mean(column) for column in columns]
        deviations = [np.std(c, ddof=1) if len(c) > 1 else 0.0 for c in columns]
        axes.errorbar(
            values, means, deviations, color=colour, marker="o", markersize=3, linewidth=1.2,
            elinewidth=0.8, capsize=2,
        )  # fmt: skip
        labels.append((float(means[-1]), name, colour))
    if score_key:
        score_axis(axes, score_key)
    if len(lines) > 1:
        end_labels(axes, labels)
