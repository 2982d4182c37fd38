"""The renderer: shapes worked out by hand, symmetries, and the numbering of examples."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ibgan_jax.data import sprites

SQUARE, ELLIPSE, HEART = range(3)
indices = hnp.arrays(np.int64, st.integers(1, 6), elements=st.integers(0, sprites.SIZE - 1))


def draw(shape, scale=5, orientation=0, x=0, y=0):
    return sprites.render(np.array([[shape, scale, orientation, x, y]]))[0]


def around_centre(image):
    """The 32 x 32 pixels round (16, 16), where x = y = 0 puts the sprite."""
    return image[:32, :32]


def test_full_size_square():
    # |j + 0.5 - 16| < 9.5997 holds for j = 6 .. 25.
    expected = np.zeros((64, 64), np.uint8)
    expected[6:26, 6:26] = 1
    np.testing.assert_array_equal(draw(SQUARE), expected)


def test_half_size_square_far_corner():
    # Centre (48, 48), half side 4.79985: j = 43 .. 52.
    expected = np.zeros((64, 64), np.uint8)
    expected[43:53, 43:53] = 1
    np.testing.assert_array_equal(draw(SQUARE, scale=0, x=31, y=31), expected)


def test_ellipse_is_wide_and_flat():
    image = draw(ELLIPSE)
    # Beside the centre line, 0.5 off it: |u| < 12.74 and |v| < 7.20.
    assert np.flatnonzero(image[15]).tolist() == list(range(3, 29))
    assert np.flatnonzero(image[:, 15]).tolist() == list(range(9, 23))


def test_heart_has_its_tip_down_and_a_notch_on_top():
    image = draw(HEART)
    # In the column u = -0.5 the curve runs from v = -6.46 to 8.42: centres 10.5 to 23.5.
    assert np.flatnonzero(image[:, 15]).tolist() == list(range(10, 24))
    # Either side the lobes rise higher than that, and the widest row is above the middle.
    assert np.flatnonzero(image.any(axis=1))[0] < 10
    assert image.sum(axis=1).argmax() < 16


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        (SQUARE, (2 * 9.5997) ** 2),
        (ELLIPSE, math.pi * 12.77 * 7.21),
        # The curve 16 sin^3 a, 13 cos a - 5 cos 2a - 2 cos 3a - cos 4a encloses 180 pi.
        (HEART, 180 * math.pi * (9.593 / 16) * 0.6622),
    ],
)
@pytest.mark.parametrize("scale", [0, 2, 5])
def test_mean_area(shape, area, scale):
    rng = np.random.default_rng(0)
    places = rng.integers(0, (40, 32, 32), (200, 3))
    factors = np.column_stack([np.full(200, shape), np.full(200, scale), places])
    mean = sprites.render(factors).sum(axis=(1, 2)).mean()
    assert mean == pytest.approx(area * (0.5 + 0.1 * scale) ** 2, rel=0.01)


@pytest.mark.parametrize(("column", "axis"), [(3, 1), (4, 0)])
@pytest.mark.parametrize("shape", [SQUARE, ELLIPSE, HEART])
def test_a_step_moves_the_centroid_by_32_31sts_of_a_pixel(shape, column, axis):
    factors = np.tile([shape, 3, 5, 7, 9], (32, 1))
    factors[:, column] = np.arange(32)
    images = sprites.render(factors).astype(float)
    weights = images.sum(axis=2 - axis)
    centroids = (weights * np.arange(64)).sum(axis=1) / weights.sum(axis=1)
    np.testing.assert_allclose(centroids - centroids[0], np.arange(32) * 32 / 31, atol=0.25)
    # Both ends lie the same way on the pixel grid.
    np.testing.assert_array_equal(np.roll(images[0], 32, axis=axis), images[-1])


@pytest.mark.parametrize("orientation", [0, 1, 7, 20, 38])
def test_symmetries(orientation):
    square = around_centre(draw(SQUARE, orientation=orientation))
    np.testing.assert_array_equal(square, np.rot90(square))
    ellipse = around_centre(draw(ELLIPSE, orientation=orientation))
    np.testing.assert_array_equal(ellipse, np.rot90(ellipse, 2))
    heart = around_centre(draw(HEART, orientation=orientation))
    mirrored = around_centre(draw(HEART, orientation=39 - orientation))
    np.testing.assert_array_equal(heart, mirrored[:, ::-1])


def test_the_ellipse_turns_counterclockwise_on_the_screen():
    # A tenth of a turn on, the right end of the long axis is up (rows count downwards).
    image = around_centre(draw(ELLIPSE, orientation=4))
    assert image[:16, 16:].sum() > 1.5 * image[16:, 16:].sum()


def test_a_full_turn_is_no_turn():
    for shape, scale in itertools.product(range(3), range(6)):
        np.testing.assert_array_equal(draw(shape, scale, 0, 5, 11), draw(shape, scale, 39, 5, 11))


def test_known_numbers():
    assert sprites.index_of([0, 0, 0, 0, 1]) == 1
    assert sprites.index_of([0, 0, 0, 1, 0]) == 32
    assert sprites.index_of([1, 0, 0, 0, 0]) == 6 * 40 * 32 * 32
    assert sprites.index_of([2, 5, 39, 31, 31]) == 737279
    assert sprites.factors_of(0).tolist() == [0, 0, 0, 0, 0]


@given(indices)
def test_numbering_is_undone(values):
    factors = sprites.factors_of(values)
    assert factors.shape == (*values.shape, 5)
    np.testing.assert_array_equal(sprites.index_of(factors), values)
    np.testing.assert_array_equal(sprites.index_of(factors[None]), values[None])


@given(indices)
@settings(max_examples=25)
def test_images_are_binary_and_clear_of_the_edge(values):
    images = sprites.render(sprites.factors_of(values))
    assert images.shape == (len(values), 64, 64)
    assert images.dtype == np.uint8
    assert set(np.unique(images)) == {0, 1}
    assert not images[:, [0, -1]].any()
    assert not images[:, :, [0, -1]].any()


def test_no_images():
    assert sprites.render(np.zeros((0, 5), int)).shape == (0, 64, 64)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ([[0, 0, 0, 0]], "5 values on the last axis"),
        ([0, 0, 0, 0, 0], r"shape \[B, 5\]"),
        ([[0.0, 0, 0, 0, 0]], "must be integers"),
        ([[3, 0, 0, 0, 0]], r"shape must be in \[0, 3\)"),
        ([[0, 0, 0, 0, -1]], r"y must be in \[0, 32\)"),
    ],
)
def test_wrong_factors_are_named(factors, message):
    with pytest.raises(ValueError, match=message):
        sprites.render(factors)


@pytest.mark.parametrize("value", [-1, sprites.SIZE, 0.5])
def test_wrong_indices_are_named(value):
    with pytest.raises(ValueError, match="indices must be"):
        sprites.factors_of([value])
