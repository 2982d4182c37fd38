import base64
import sys

import numpy as np
import pytest
from PIL import Image

from ibgan_jax import reports
from ibgan_jax.errors import UserError
from ibgan_jax.reports import curves, html

SCORE = "score/factor_vae"


def scored(*pairs):
    return [{"step": step, SCORE: value} for step, value in pairs]


def run_records(dims=10, count=40):
    """A plausible run: bounds rise, every fourth record has a score, the last dimension is dead."""
    records = []
    for step in range(100, 100 * count + 1, 100):
        kl = [step / 1000 / (i + 1) for i in range(dims - 1)] + [0.0]
        record = {f"kl/{i}": nats for i, nats in enumerate(kl)}
        record |= {"step": step, "bounds/upper": sum(kl), "bounds/lower": 0.8 * sum(kl)}
        record[SCORE] = 0.2 + step / 10000 if step % 400 == 0 else None
        records.append(record)
    return records


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# ---------------------------------------------------------------------------------------- grids


def test_tile_places_images_row_by_row_with_a_grey_rule():
    images = np.stack([np.full((2, 3, 1), value) for value in (-1.0, 1.0, 0.0)])
    grid = reports.tile(images, columns=2, pad=2)
    assert grid.dtype == np.uint8
    assert grid.shape == (2 + 2 + 2, 3 + 2 + 3, 1)
    np.testing.assert_array_equal(grid[0, :, 0], [0, 0, 0, 128, 128, 255, 255, 255])
    np.testing.assert_array_equal(grid[2:4], 128)
    np.testing.assert_array_equal(grid[4:, :3], 128)  # 0 is mid-grey
    np.testing.assert_array_equal(grid[4:, 3:], 128)  # the place left over


def test_tile_clips_and_keeps_colours_and_needs_no_full_row():
    image = np.array([[[[-3.0, 0.5, 3.0]]]])
    np.testing.assert_array_equal(reports.tile(image, columns=8), [[[0, 191, 255]]])
    np.testing.assert_array_equal(reports.tile(np.full((1, 1, 1, 1), np.nan), 1), [[[128]]])


@pytest.mark.parametrize("shape", [(0, 4, 4, 1), (3, 4, 4), (3, 4, 4, 2)])
def test_tile_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match="images are"):
        reports.tile(np.zeros(shape), columns=2)


def test_tile_refuses_no_columns():
    with pytest.raises(ValueError, match="columns >= 1"):
        reports.tile(np.zeros((1, 4, 4, 1)), columns=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_round_trip_with_whole_pixels(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    path = tmp_path / "new" / "image.png"
    reports.save_png(path, image, scale=3)
    expected = np.broadcast_to(image, (5, 7, 3)).repeat(3, 0).repeat(3, 1)
    np.testing.assert_array_equal(opened(path), expected)
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


def test_png_refuses_floats_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "image.png"
    reports.save_png(path, np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        reports.save_png(path, np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        reports.save_png(path, np.zeros((2, 2, 4), np.uint8))
    assert opened(path).shape == (2, 2, 3)


# --------------------------------------------------------------------------------------- scores


def test_best_and_median_skips_none_missing_and_nan():
    records = [
        *scored((10, 0.2), (20, None), (30, 0.9), (40, float("nan")), (60, 0.4)),
        {"step": 50},
    ]
    assert reports.best_and_median(records, SCORE) == (30, 0.9, 0.4, 0.4)


def test_the_earliest_of_equal_bests_counts():
    assert reports.best_and_median(scored((5, 0.1), (7, 0.8), (9, 0.8)), SCORE)[0] == 7


def test_no_scores_are_none():
    assert reports.best_and_median([], SCORE) is None
    assert reports.best_and_median(scored((1, None)), SCORE) is None


def test_a_repeated_step_takes_the_later_record():
    records = scored((10, 0.3), (20, 0.9), (10, 0.5), (20, 0.4))  # resumed from step 0
    assert reports.best_and_median(records, SCORE) == (10, 0.5, 0.45, 0.4)


def test_moving_average_keeps_constants_and_lines():
    np.testing.assert_allclose(curves._moving_average(np.full(30, 2.0), 5), 2.0)
    line = np.arange(30.0)
    np.testing.assert_allclose(curves._moving_average(line, 5)[2:-2], line[2:-2])


# -------------------------------------------------------------------------------------- figures


def test_convergence_marks_the_best_step_in_both_panels(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    marked, said = [], []
    monkeypatch.setattr(Axes, "axvline", lambda self, x, **look: marked.append(x))
    annotate = Axes.annotate
    monkeypatch.setattr(
        Axes,
        "annotate",
        lambda self, text, *a, **k: said.append(text) or annotate(self, text, *a, **k),
    )
    records = run_records()
    records[11][SCORE] = 0.95  # step 1,200
    reports.convergence_figure(tmp_path / "convergence.png", records, SCORE, dims=10)
    assert marked == [1200, 1200]
    assert "best 0.95 at step 1,200" in said
    assert "KL of $r_{0}$" in said
    assert "KL of $r_{9}$" not in said  # dead


@pytest.mark.parametrize(
    "records",
    [[], [{"step": 100, "kl/0": None}], run_records(dims=1, count=3), run_records(10, 250)],
    ids=["none", "empty", "few", "many"],
)
def test_figures_of_any_records(tmp_path, records):
    reports.convergence_figure(tmp_path / "a.png", records, SCORE, dims=1)
    groups = [
        ("Bounds", [("bounds/upper", "I_U"), ("bounds/lower", "I_L")]),
        ("None", [("no", "")]),
    ]
    reports.curves_figure(tmp_path / "b.png", records, groups)
    for name in ("a.png", "b.png"):
        assert opened(tmp_path / name).std() > 1


def test_matrix_figure(tmp_path):
    def draw(name, matrix, factors, dims, **more):
        reports.matrix_figure(tmp_path / name, matrix, factors, dims, "chosen", **more)
        return opened(tmp_path / name)

    assert draw("one.png", np.array([[3]]), ["x"], ["r0"]).std() > 1
    draw("zero.png", np.zeros((4, 2), int), ["x", "y"], list("abcd"))
    information = np.array([[0.9, 0.2], [0.8, 0.1]])  # r0 tells most of both factors
    by_dimension = draw("d.png", information, ["x", "y"], ["r0", "r1"])
    by_factor = draw("f.png", information, ["x", "y"], ["r0", "r1"], by="factor")
    assert (by_dimension != by_factor).any()
    with pytest.raises(ValueError, match="the matrix is"):
        draw("bad.png", np.zeros((2, 3)), ["x"], ["r0"])


def test_figures_leave_the_callers_matplotlib_alone(tmp_path):
    import matplotlib

    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    reports.convergence_figure(tmp_path / "a.png", run_records(), SCORE, dims=10)
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


# ----------------------------------------------------------------------------------------- page


def write(tmp_path, **changes):
    figure = tmp_path / "grid.png"
    reports.save_png(figure, np.arange(16, dtype=np.uint8).reshape(4, 4))
    arguments = {
        "title": "IB-GAN <script>alert(1)</script>",
        "summary": [("best", 0.8312), ("iterations", 150000)],
        "figures": [(figure, "Grid", "one\n\ntwo & <b>"), (str(figure), "Again", "")],
        "settings": {"seed": 0, "hparams": {"lr": {"d": 1e-06}}, "name": "<script>"},
        "scores": {
            "factor_vae": {
                "value": 0.8,
                "interval": [0.75, 0.85],
                "protocol": "id_gan",
                "votes": 800,
            },
            "step": 150000,
        },
        "notes": ["<script>"],
        "software": {"jax": "0.11"},
    }
    path = tmp_path / "report.html"
    reports.write_report(path, **{**arguments, **changes})
    return figure, path.read_text(encoding="utf-8")


def test_report_holds_every_figure_and_escapes_everything(tmp_path):
    figure, page = write(tmp_path)
    data = base64.b64encode(figure.read_bytes()).decode()
    assert page.count(f'src="data:image/png;base64,{data}"') == 2
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<p>one</p><p>two &amp; &lt;b&gt;</p>" in page
    assert "http://" not in page
    assert "https://" not in page


def test_report_tables(tmp_path):
    _, page = write(tmp_path)
    for text in ("0.831", "150,000", "0.750 to 0.850", "id_gan", "votes 800", "<td>1e-06</td>"):
        assert text in page
    assert "<th>hparams.lr.d</th>" in page
    assert "<th>jax</th><td>0.11</td>" in page


def test_report_without_anything_has_no_empty_sections(tmp_path):
    empty = {"summary": [], "figures": [], "settings": {}, "scores": {}, "notes": []}
    _, page = write(tmp_path, **empty, software=None)
    assert page.count("<h2>") == 1  # the words


def test_a_missing_figure_is_named_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match=r"lost\.png"):
        write(tmp_path, figures=[(tmp_path / "lost.png", "Lost", "")])
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


def test_flatten_keeps_order_and_empty_leaves():
    nested = {"b": {"x": 1, "y": {"z": (1, 2)}}, "a": {}}
    assert list(html.flatten(nested)) == [("b.x", 1), ("b.y.z", (1, 2)), ("a", {})]
