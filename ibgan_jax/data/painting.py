"""The picture behind Scream-dSprites: a file that the user names, or a generated stand-in."""

from __future__ import annotations

import hashlib
import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.errors import UserError, one_line

PATCH = 64  # pixels a side, what a sprite's image measures
BOX = (350, 274)  # width and height into which disentanglement_lib shrinks the painting

_STAND_IN_SEED = 0
_STAND_IN_WAVES = 12


def read_painting(path: str | Path) -> tuple[NDArray[np.float32], str]:
    """The pixels float32 [H, W, 3] in [0, 1] of a picture file, and a line that says which it is.

    As in disentanglement_lib a larger picture is shrunk, its proportions kept, to fit 350 pixels
    of width and 274 of height. Raises UserError when `path` is no picture, or too small.
    """
    from PIL import Image, UnidentifiedImageError

    path = Path(path).expanduser()
    if not path.is_file():
        raise _refused(path, "there is no such file")
    try:
        content = path.read_bytes()
        picture = Image.open(io.BytesIO(content)).convert("RGB")
    except UnidentifiedImageError as error:
        raise _refused(path, "it is not a picture") from error
    except Exception as error:  # Damaged files raise anything, from OSError to SyntaxError.
        raise _refused(path, one_line(error)) from error
    picture.thumbnail(BOX, Image.Resampling.BICUBIC)
    width, height = picture.size
    if min(width, height) < PATCH:
        raise _refused(path, f"it measures {width} x {height}")
    sha = hashlib.sha256(content).hexdigest()[:12]
    note = f"Painting: {path.name}, shrunk to {width} x {height} pixels (SHA-256 {sha})."
    return np.asarray(picture, np.float32) / np.float32(255), note


def stand_in() -> tuple[NDArray[np.float32], str]:
    """As `read_painting`, of a generated picture: waves of colour, the same every time."""
    width, height = BOX
    rng = np.random.Generator(np.random.Philox(_STAND_IN_SEED))
    # Axes: wave, row, column, channel. Short waves weigh less, as in natural images.
    draws = rng.random((_STAND_IN_WAVES, 3))
    cycles = 2 + 14 * draws[:, 0, None, None, None]  # over the picture's width
    angle = 2 * math.pi * draws[:, 1, None, None, None]
    phase = 2 * math.pi * (draws[:, 2, None, None, None] + rng.random((_STAND_IN_WAVES, 1, 1, 3)))
    y, x = np.mgrid[:height, :width][..., None] / width
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    bent = along + 0.03 * np.sin(2 * math.pi * 3 * across)
    waves = (np.sin(2 * math.pi * cycles * bent + phase) / np.sqrt(cycles)).sum(0)
    low, high = waves.min((0, 1)), waves.max((0, 1))
    pixels = np.rint(255 * (waves - low) / (high - low))  # whole levels, as a file would have
    note = (
        "Painting: a generated stand-in, not The Scream; "
        "--config.dataset.painting=FILE names a picture."
    )
    return pixels.astype(np.float32) / np.float32(255), note


def _refused(path: Path, reason: str) -> UserError:
    return UserError(
        f"dataset.painting={path} cannot be used ({reason}); it names a picture (JPEG, PNG, ...) "
        f"of at least {PATCH} x {PATCH} pixels once it is shrunk to fit {BOX[0]} x {BOX[1]}"
    )
