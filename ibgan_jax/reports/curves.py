"""Curves over training: bounds with scores (the paper's Fig. 4), losses and speed.

Records are the dicts of `metrics.jsonl`: each has `step`, most lack some of the other keys, and a
value may be None. After a resumed run a step may come twice; the later record stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ibgan_jax.reports.figures import ACCENT, ACTIVE_NATS, GREY, INK, PALE, PALETTE, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = Sequence[Mapping[str, object]]
Label = tuple[float, str, str]  # height in data units, text, colour

SCORE_NAMES = {"score/factor_vae": "FactorVAE score", "score/mig": "MIG", "score/fid": "FID"}
DISTANCES = ("score/fid",)  # the smaller the better, without an upper end
SHARE_NAMES = {"kl": "KL", "information": "share"}  # of what single dimensions carry
SMOOTH_ABOVE = 200  # points; below that a curve is drawn as it is


def series(records: Records, key: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values, float [N] each, of `key`; missing, None and non-finite are left out."""
    points = {}
    for record in records:
        value = record.get(key)
        if value is not None and math.isfinite(value):
            points[record["step"]] = value
    steps = sorted(points)
    return np.array(steps, float), np.array([points[step] for step in steps], float)


def best_and_median(records: Records, key: str) -> tuple[int, float, float, float] | None:
    """What to report of the score `key`: (step of the best, best, median, last).

    The earliest of equal bests counts. None when no record has a score.
    """
    steps, values = series(records, key)
    if not len(values):
        return None
    best = int(values.argmin() if key in DISTANCES else values.argmax())
    return int(steps[best]), float(values[best]), float(np.median(values)), float(values[-1])


def convergence_figure(
    path: str | Path,
    records: Records,
    score_key: str,
    dims: int,
    share: str = "kl",
    symbol: str = "r",
) -> None:
    """Draws the bounds and each dimension's share over the score, as Fig. 4 of Jeon et al. (2021).

    Args:
      path: the PNG to write.
      records: of `metrics.jsonl`, with any of `bounds/upper`, `bounds/lower`, `{share}/0` ..
        (nats) and `score_key`.
      score_key: the score of the lower panel, one of SCORE_NAMES.
      dims: how many `{share}/i` there are.
      share: the tag of what single dimensions carry, one of SHARE_NAMES.
      symbol: the letter of a dimension.

    Dimensions that end under `ACTIVE_NATS` are pale and unnamed. Curves of more than
    `SMOOTH_ABOVE` points are drawn as in `curves_figure`.
    """
    with canvas(path, 8.6, 6.0) as figure:
        upper, lower = figure.subplots(
            2, 1, sharex=True, gridspec_kw={"height_ratios": (3, 2), "hspace": 0.16}
        )
        figure.subplots_adjust(left=0.08, right=0.845, top=0.955, bottom=0.085)
        upper.set_title("Information bounds")
        upper.set_ylabel("nats")
        labels = _draw_bounds(upper, records, dims, share, symbol)
        upper.set_ylim(bottom=min(0, upper.get_ylim()[0]))
        end_labels(upper, labels)
        name = SCORE_NAMES.get(score_key, score_key)
        lower.set_title(name)
        lower.set_xlabel("iteration")
        _draw_score(upper, lower, records, score_key)
        step_axis(lower, records)


def curves_figure(
    path: str | Path, records: Records, groups: Sequence[tuple[str, Sequence[tuple[str, str]]]]
) -> None:
    """Draws a panel for each group of curves, two abreast.

    Args:
      path: the PNG to write.
      records: of `metrics.jsonl`.
      groups: (title, [(key, label), ...]) for each panel. Groups without values are left out;
        a group of one curve needs no label.

    Curves of more than `SMOOTH_ABOVE` points are pale, with their moving average over 2 % drawn on.
    """
    groups = [
        (title, [(k, label) for k, label in curves if len(series(records, k)[0])])
        for title, curves in groups
    ]
    groups = [group for group in groups if group[1]] or [("No curves were recorded", [])]
    columns = min(2, len(groups))
    rows = -(-len(groups) // columns)
    height = 2.3 * rows + 0.35
    with canvas(path, 9.6 if columns == 2 else 6.0, height) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        right = 0.89 if columns == 2 else 0.82
        figure.subplots_adjust(
            left=0.075, right=right, bottom=0.5 / height, top=1 - 0.3 / height,
            wspace=0.56, hspace=0.42,
        )  # fmt: skip
        for axes, (title, curves) in zip(panels, groups, strict=False):
            axes.set_title(title)
            _draw_curves(axes, records, curves)
            step_axis(axes, records)
        for axes in panels[len(groups) :]:
            axes.set_visible(False)
        for axes in panels[max(len(groups) - columns, 0) : len(groups)]:
            axes.set_xlabel("iteration")


# --------------------------------------------------------------------------------------- panels


def _draw_bounds(axes: Axes, records: Records, dims: int, share: str, symbol: str) -> list[Label]:
    """Draws both bounds and every share; returns the labels for their ends."""
    labels: list[Label] = []
    active = 0
    for i in range(dims):
        steps, values = series(records, f"{share}/{i}")
        if not len(values):
            continue
        if values[-1] < ACTIVE_NATS:
            _line(axes, steps, values, color=PALE, linewidth=0.9)
            continue
        colour = PALETTE[active % len(PALETTE)]
        dash = "-" if active < len(PALETTE) else (0, (4, 1.5))
        end = _line(axes, steps, values, color=colour, linewidth=1.2, linestyle=dash)
        labels.append((end, f"{SHARE_NAMES[share]} of ${symbol}_{{{i}}}$", colour))
        active += 1
    for key, text, colour in (
        ("bounds/upper", r"upper bound $I_U$", INK),
        ("bounds/lower", r"lower bound $I_L$", ACCENT),
    ):
        steps, values = series(records, key)
        if len(values):
            end = _line(axes, steps, values, color=colour, linewidth=2.4, zorder=3)
            labels.append((end, text, colour))
    if not labels:
        _say_nothing(axes)
    return labels


def _draw_score(upper: Axes, lower: Axes, records: Records, key: str) -> None:
    """Draws the score in `lower`, its median, and the best step through both panels."""
    found = best_and_median(records, key)
    if found is None:
        _say_nothing(lower)
        return
    best_step, best, median, last = found
    steps, values = series(records, key)
    lower.axhline(median, color=GREY, linewidth=0.9)
    lower.plot(steps, values, color=PALETTE[0], linewidth=1.3, marker="o", markersize=2.6)
    for axes in (upper, lower):
        axes.axvline(best_step, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    lower.plot([best_step], [best], color=ACCENT, marker="o", zorder=4, clip_on=False)
    score_axis(lower, key)
    # Beside the foot of the line, where scores seldom are; on the side that has more room.
    late = best_step > 0.5 * steps[-1]
    lower.annotate(
        f"best {best:.2f} at step {best_step:,}",
        (best_step, 0.06),
        xycoords=("data", "axes fraction"),
        xytext=(-6 if late else 6, 0),
        textcoords="offset points",
        ha="right" if late else "left",
        va="center",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )
    end_labels(
        lower, [(median, f"median {median:.2f}", GREY), (last, f"last {last:.2f}", PALETTE[0])]
    )


def _draw_curves(axes: Axes, records: Records, curves: Sequence[tuple[str, str]]) -> None:
    labels: list[Label] = []
    for index, (key, label) in enumerate(curves):
        steps, values = series(records, key)
        colour = PALETTE[index % len(PALETTE)]
        end = _line(axes, steps, values, color=colour, linewidth=1.3)
        if len(curves) > 1:
            labels.append((end, label, colour))
    if not curves:
        _say_nothing(axes)
    end_labels(axes, labels)


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, color: str, **look: object) -> float:
    """Draws a curve and returns the height at which it ends.

    Many points are pale under their average; so few that a line hardly shows are marked.
    """
    if len(values) > SMOOTH_ABOVE:
        axes.plot(steps, values, color=color, linewidth=0.6, alpha=0.25)
        values = _moving_average(values, len(values) // 50)
    marker = "o" if len(steps) < 3 else None
    axes.plot(steps, values, color=color, marker=marker, markersize=4, **look)
    return float(values[-1])


def _moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Centred mean over `window` points, over fewer at the ends."""
    kernel = np.ones(window)
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _say_nothing(axes: Axes) -> None:
    axes.text(
        0.5, 0.5, "nothing recorded", transform=axes.transAxes, ha="center", va="center", color=GREY
    )


def score_axis(axes: Axes, key: str) -> None:
    """Makes the y axis show a score's whole scale, from 0; call it when the curves are drawn."""
    axes.set_ylim(0, None if key in DISTANCES else 1.02)


def step_axis(axes: Axes, records: Records) -> None:
    """Makes the x axis run over all recorded steps, ticks written 50k, 1.5M."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    last = max((record["step"] for record in records), default=1)
    axes.set_xlim(0, max(last, 1) * 1.005)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def end_labels(axes: Axes, labels: Sequence[Label]) -> None:
    """Names lines at the panel's right edge, pushed apart where they would touch."""
    if not labels:
        return
    size = 8.5
    labels = sorted(labels)
    low, high = axes.get_ylim()
    wanted = np.array([(y - low) / (high - low) for y, _, _ in labels])
    gap = 1.3 * size / 72 * axes.figure.dpi / axes.get_window_extent().height
    places = wanted.copy()
    for _ in range(300):
        overlap = np.maximum(gap - np.diff(places), 0) / 2
        places[:-1] -= overlap
        places[1:] += overlap
    places -= max(places[-1] - 1, 0)
    places += max(-places[0], 0)
    for (_, text, colour), start, end in zip(labels, wanted, places, strict=True):
        axes.annotate(
            text, (1, start), (1.045, end), xycoords="axes fraction", textcoords="axes fraction",
            color=colour, fontsize=size, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1},
        )  # fmt: skip
