"""Pictures of many runs: what they average over, and that they draw whatever there is."""

import numpy as np
import pytest
from PIL import Image

from ibgan_jax import reports
from ibgan_jax.reports import spread

SCORE = "score/factor_vae"


def records(level, steps=(10, 20, 30), score=True):
    """A run whose bounds are level + step / 10, scored at every second step."""
    made = []
    for number, step in enumerate(steps):
        record = {"step": step, "bounds/upper": level + step / 10, "bounds/lower": level}
        if score and number % 2:
            record[SCORE] = level / 10
        made.append(record)
    return made


def test_means_are_over_the_runs_that_have_a_value():
    runs = [records(1.0), records(3.0), records(5.0, steps=(10, 20))]
    steps, means, deviations = spread.mean_and_deviation(runs, "bounds/upper")
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_allclose(means, [4.0, 5.0, 5.0])
    np.testing.assert_allclose(deviations, [2.0, 2.0, np.sqrt(2)])
    steps, means, deviations = spread.mean_and_deviation(runs[:1], "bounds/lower")
    np.testing.assert_allclose((means, deviations), ([1.0] * 3, [0.0] * 3))


@pytest.mark.parametrize("groups", [1, 3, 12])
def test_a_curve_for_each_group(tmp_path, groups):
    made = {f"beta={i}": [records(i), records(i + 0.5)] for i in range(groups)}
    reports.spread_figure(tmp_path / "curves.png", made, SCORE)
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).reshape(-1, 3)
    colours = {tuple(colour) for colour in np.unique(pixels, axis=0)}
    for colour in spread._colours(groups):
        wanted = _rgb(colour)
        assert any(np.abs(np.subtract(wanted, found)).max() <= 2 for found in colours), colour


def _rgb(colour):
    from matplotlib.colors import to_rgb

    return [round(255 * part) for part in to_rgb(colour)]


def test_panels_of_what_was_not_recorded_are_left_out(tmp_path):
    with_score, without = tmp_path / "a.png", tmp_path / "b.png"
    reports.spread_figure(with_score, {"": [records(1)]}, SCORE)
    reports.spread_figure(without, {"": [records(1, score=False)]}, SCORE)
    reports.spread_figure(tmp_path / "c.png", {"": [[]]}, SCORE)
    heights = [Image.open(path).height for path in (with_score, without)]
    assert heights[0] > heights[1]


def test_a_sweep_draws_medians_and_scores(tmp_path, monkeypatch):
    drawn = {}
    against = spread._against

    def watched(axes, values, lines, score_key):
        drawn[axes.get_title(loc="left")] = (values.tolist(), lines)
        against(axes, values, lines, score_key)

    monkeypatch.setattr(spread, "_against", watched)
    runs = {0.5: [records(2.0), records(4.0)], 0.1: [records(1.0), records(1.0)]}
    reports.sweep_figure(tmp_path / "sweep.png", runs, "beta", SCORE)
    upper = drawn["upper bound $I_U$, nats"]
    assert upper == ([0.1, 0.5], {"": [[3.0, 3.0], [4.0, 6.0]]})
    assert drawn["FactorVAE score"][1]["best"] == [[0.1, 0.1], [0.2, 0.4]]
    assert drawn["FactorVAE score, median"][1][""] == drawn["FactorVAE score"][1]["median"]
    assert Image.open(tmp_path / "sweep.png").width > 1000


def test_a_sweep_without_scores_has_the_bounds_alone(tmp_path):
    runs = {value: [records(value, score=False)] for value in (0.1, 0.2)}
    reports.sweep_figure(tmp_path / "sweep.png", runs, "beta", SCORE)
    scored = {value: [records(value)] for value in (0.1, 0.2)}
    reports.sweep_figure(tmp_path / "scored.png", scored, "beta", SCORE)
    heights = [Image.open(tmp_path / f"{name}.png").height for name in ("sweep", "scored")]
    assert heights[0] < heights[1]
