"""dSprites, rendered: the geometry of the original images as plain NumPy.

The data set (Matthey et al., 2017, "dSprites: Disentanglement testing Sprites dataset") is every
combination of five factors, one 64 x 64 binary image each. The numbers below were recovered
from images of the original and reproduce them to the pixel but for about 2 pixels in 100,000.

Everything is float64 on the host. No pixel centre of any image is closer than 1e-9 to its shape's
border (in the terms compared below), a million times the rounding of any math library, so a cached
set, a test and a resumed run see the same images on every machine.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

FACTOR_NAMES = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
SHAPE_NAMES = ("square", "ellipse", "heart")
SIZE = math.prod(FACTOR_SIZES)
IMAGE_SIDE = 64
RECORD_BYTES = IMAGE_SIDE * IMAGE_SIDE // 8

# Pixels at scale 1.
_SQUARE_HALF_SIDE = 9.5997
_ELLIPSE_HALF_AXES = (12.77, 7.21)
_HEART_HALF_WIDTH = 9.593
_HEART_HEIGHT = 0.6622
_HEART_SHIFT = -1.435
# No point of a shape lies farther than this from its centre: the square's corner, the ellipse's
# long half axis, and (rounded up) the far end of the heart.
_RADII = (_SQUARE_HALF_SIDE * math.sqrt(2), _ELLIPSE_HALF_AXES[0], 11.26)

_POSITIONS = FACTOR_SIZES[3]
_CENTRES = 16 + 32 * np.arange(_POSITIONS) / (_POSITIONS - 1)
_PIXELS = np.arange(IMAGE_SIDE) + 0.5


def index_of(factors: ArrayLike) -> NDArray[np.int64]:
    """Factor indices int [..., 5] -> position in the data set int64 [...] (y varies fastest).

    Raises ValueError when the last axis is not 5, a value is not an integer or out of range.
    """
    return np.ravel_multi_index(
        tuple(np.moveaxis(_checked_factors(factors), -1, 0)), FACTOR_SIZES
    ).astype(np.int64)


def factors_of(indices: ArrayLike) -> NDArray[np.int64]:
    """Position in the data set int [...] -> factor indices int64 [..., 5], `index_of` undone.

    Raises ValueError when a value is not an integer or outside [0, 737280).
    """
    array = _as_integers("indices", indices)
    if array.size and not (array.min() >= 0 and array.max() < SIZE):
        raise ValueError(
            f"indices must be in [0, {SIZE}), got values from {array.min()} to {array.max()}"
        )
    return np.stack(np.unravel_index(array, FACTOR_SIZES), axis=-1).astype(np.int64)


def render(factors: ArrayLike) -> NDArray[np.uint8]:
    """Draw sprites: factor indices int [B, 5] -> uint8 [B, 64, 64] of 0 and 1.

    The columns of `factors` are shape (square, ellipse, heart), scale, orientation, x and y.
    Raises ValueError when `factors` is not [B, 5], not integer, or out of range.
    """
    checked = _checked_factors(factors)
    if checked.ndim != 2:
        raise ValueError(f"factors must have shape [B, 5], got {list(checked.shape)}")
    images = np.zeros((len(checked), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    for image, (shape, scale, orientation, x, y) in zip(images, checked, strict=True):
        dx, dy = _PIXELS - _CENTRES[x], _PIXELS - _CENTRES[y]
        image[:] = _inside(int(shape), int(scale), int(orientation), dx[None, :], dy[:, None])
    return images


def render_packed_all(
    progress: Callable[[int, int], None] | None = None, threads: int | None = None
) -> NDArray[np.uint8]:
    """Draw the whole data set as packed rows: uint8 [737280, 512], bit for bit `render`'s images.

    An image is 64 rows of 8 bytes; the leftmost pixel of a byte is its highest bit
    (`np.packbits` along a row). `progress(done, total)` is called, from this thread, with
    the number of images drawn so far. `threads` is one a core unless given. Takes seconds and
    378 MB.
    """
    groups = [
        (shape, scale, orientation)
        for shape in range(FACTOR_SIZES[0])
        for scale in range(FACTOR_SIZES[1])
        for orientation in range(FACTOR_SIZES[2])
    ]
    rows = np.zeros((len(groups), _POSITIONS, _POSITIONS, IMAGE_SIDE), ">u8")
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        # NumPy lets go of the interpreter lock, so threads share the work without copying it.
        done = pool.map(_draw_group, groups, rows)
        for count, _ in enumerate(done, 1):
            if progress is not None:
                progress(count * _POSITIONS**2, SIZE)
    return rows.view(np.uint8).reshape(SIZE, RECORD_BYTES)


def _inside(
    shape: int, scale: int, orientation: int, dx: NDArray[np.float64], dy: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which of the points at (dx, dy) pixels from the centre (y down) a sprite covers.

    `dx` and `dy` broadcast against each other; so does the result.
    """
    size = 0.5 + 0.1 * scale
    # The last orientation is the first again, a full turn later.
    angle = 2 * math.pi * (orientation % (FACTOR_SIZES[2] - 1)) / (FACTOR_SIZES[2] - 1)
    cos, sin = math.cos(angle) / size, math.sin(angle) / size
    u = cos * dx - sin * dy
    v = sin * dx + cos * dy
    if shape == 0:
        return np.maximum(np.abs(u), np.abs(v)) < _SQUARE_HALF_SIDE
    if shape == 1:
        a, b = _ELLIPSE_HALF_AXES
        return np.square(u / a) + np.square(v / b) < 1
    return _inside_heart(u, v)


def _inside_heart(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether (u, v) is inside u = w sin^3 a, v = -h (13 c1 - 5 c2 - 2 c3 - c4) + d, cn = cos(n a).

    A vertical line meets the curve at a and pi - a, that is at cos a = c and -c. With
    cos 2a = 2c^2 - 1, cos 3a = 4c^3 - 3c and cos 4a = 8c^4 - 8c^2 + 1, the even terms give the
    middle of the two crossings and the odd ones half their distance:
    middle = h (8 c^4 + 2 c^2 - 4) + d, half = h c (19 - 8 c^2).
    Squares are compared, which spares the root; c^2 < 0, right or left of the heart, is outside.
    """
    c2 = 1 - np.square(np.cbrt(u / _HEART_HALF_WIDTH))
    middle = (_HEART_HEIGHT * 8 * c2 + _HEART_HEIGHT * 2) * c2 + (_HEART_SHIFT - 4 * _HEART_HEIGHT)
    return np.square(v - middle) < c2 * np.square(_HEART_HEIGHT * (19 - 8 * c2))


def _draw_group(group: tuple[int, int, int], rows: NDArray) -> None:
    """Draw one shape, scale and orientation at all places into `rows` [x, y, 64] of 64-bit rows.

    A sprite covers at most 28 columns, so only a window of 32 round each centre is evaluated;
    its bits are one 32-bit word that a shift puts in its place in the 64-bit row.
    """
    shape, scale, orientation = group
    reach = _RADII[shape] * (0.5 + 0.1 * scale)
    side = math.ceil(2 * reach) + 1
    starts = np.ceil(_CENTRES - reach - 0.5).astype(int)
    # [position, pixel of the window], pixels from the centre
    offsets = _PIXELS[starts[:, None] + np.arange(side)] - _CENTRES[:, None]
    shifts = (32 - starts).astype(np.int64)
    for y, start in enumerate(starts):
        dx, dy = offsets[None, :, :], offsets[y][:, None, None]
        window = np.zeros((side, _POSITIONS, 32), np.bool_)
        window[:, :, :side] = _inside(shape, scale, orientation, dx, dy)
        words = np.packbits(window, axis=-1).view(">u4")[..., 0].astype(np.uint64)
        left = np.left_shift(words, np.maximum(shifts, 0).astype(np.uint64))
        placed = np.right_shift(left, np.maximum(-shifts, 0).astype(np.uint64))
        rows[:, y, start : start + side] = placed.T


def _as_integers(name: str, values: ArrayLike) -> NDArray:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} must be integers, got {array.dtype}")
    return array


def _checked_factors(factors: ArrayLike) -> NDArray:
    array = _as_integers("factors", factors)
    if array.ndim == 0 or array.shape[-1] != len(FACTOR_SIZES):
        raise ValueError(
            f"factors must have {len(FACTOR_SIZES)} values on the last axis "
            f"({', '.join(FACTOR_NAMES)}), got shape {list(array.shape)}"
        )
    for column, (name, size) in enumerate(zip(FACTOR_NAMES, FACTOR_SIZES, strict=True)):
        values = array[..., column]
        if values.size and not (values.min() >= 0 and values.max() < size):
            raise ValueError(
                f"factor {name} must be in [0, {size}), "
                f"got values from {values.min()} to {values.max()}"
            )
    return array
