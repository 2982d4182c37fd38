"""Latent traversals: what is traversed, and what is drawn of it."""

import numpy as np
import pytest
from PIL import Image

from ibgan_jax import reports


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_traversal_image_has_a_row_for_each_dimension():
    images = np.zeros((3, 5, 8, 8, 1))
    images[1] = 1
    grid = reports.traversal_image(images)
    assert grid.shape == (3 * 8 + 2 * 2, 5 * 8 + 4 * 2, 1)
    np.testing.assert_array_equal(grid[10:18, :8], 255)


def drawn_traversals(path, count=2, dims=2, steps=3, side=64, nats=(2.4, 0.7), **more):
    """Traversals of random pixels, as drawn: (starts, images, picture uint8)."""
    rng = np.random.default_rng(0)
    starts = rng.choice([-1.0, 1.0], (count, side, side, 1))
    images = rng.choice([-1.0, 1.0], (count, dims, steps, side, side, 1))
    given = {"values": range(steps), "names": [f"r{i}" for i in range(dims)], **more}
    reports.traversal_figure(path, starts, images, np.array(nats), **given)
    return starts, images, opened(path)[..., :1]


def test_traversal_figure_keeps_every_pixel_of_the_sprites(tmp_path):
    starts, images, drawn = drawn_traversals(tmp_path / "traversals.png")
    for i, (start, rows) in enumerate(zip(starts, images, strict=True)):
        grid = reports.traversal_image(rows).repeat(2, 0).repeat(2, 1)
        high, wide = grid.shape[:2]
        top, left = 60 + i * (high + 16), 150
        begins = left + 2 * 64 + 16
        np.testing.assert_array_equal(drawn[top : top + high, begins : begins + wide], grid)
        alone = reports.tile(start[None], 1).repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(drawn[top : top + 128, left : left + 128], alone)


def test_traversal_figure_says_how_many_dimensions_carry_nothing(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    texts = []
    write = Figure.text
    monkeypatch.setattr(
        Figure, "text", lambda self, x, y, s, **k: texts.append(s) or write(self, x, y, s, **k)
    )
    *_, whole = drawn_traversals(tmp_path / "a.png", dims=3, nats=(2.4, 0.7, 0.06))
    assert not any("nothing" in text for text in texts)
    *_, part = drawn_traversals(tmp_path / "b.png", dims=3, nats=(2.4, 0.04, 0.0))
    assert "2 dimensions carry nothing" in texts
    assert len(part) == len(whole) - 2 * 2 * 2 * 66  # two rows less in each of two blocks
    drawn_traversals(tmp_path / "c.png", nats=(2.4, 0.0))
    assert "1 dimension carries nothing" in texts
    texts.clear()
    drawn_traversals(tmp_path / "d.png", nats=(0.04, 0.0))  # the first one is drawn
    assert "2 dimensions carry nothing" in texts
    assert any(text.startswith("r0") for text in texts)
    assert not any(text.startswith("r1") for text in texts)


def test_traversal_figure_shrinks_large_images_and_refuses_lengths_that_disagree(tmp_path):
    *_, drawn = drawn_traversals(tmp_path / "a.png", 1, 1, 2, side=512, nats=(1.0,))
    assert drawn.shape[1] < 1200
    with pytest.raises(ValueError, match="need 3 values, not 2"):
        drawn_traversals(tmp_path / "b.png", values=range(2))


def test_traversals_start_from_the_codes_of_real_images():
    def represent(variables, images):
        return images.reshape(len(images), -1)[:, :3] + variables

    def generate(variables, codes):
        return codes[:, None, None, :1] + 10 * codes[:, None, None, 1:2]

    starts = np.arange(8.0).reshape(2, 2, 2, 1)  # codes: 0 1 2 and 4 5 6, plus 100
    images, order = reports.traversals(
        generate, represent, 100.0, np.array([0.1, 0.9, 0.5]), starts, np.array([-1.0, 1.0])
    )
    assert order.tolist() == [1, 2, 0]
    assert images.shape == (2, 3, 2, 1, 1, 1)
    moved = [[90, 110], [1110, 1110], [1009, 1011]]  # dimension 1, 2 (which nothing shows), 0
    np.testing.assert_allclose(images[0, ..., 0, 0, 0], moved)
    np.testing.assert_allclose(images[1, 0, :, 0, 0, 0], [94, 114])


def test_unlike_images_are_far_apart():
    images = np.array([0.0, 0.1, 9.0, 9.2, 5.0]).reshape(-1, 1, 1, 1)
    assert reports.unlike(images, 3).ravel().tolist() == [0.0, 9.2, 5.0]
    assert len(reports.unlike(images, 9)) == 5
