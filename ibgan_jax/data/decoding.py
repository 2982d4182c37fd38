"""Images from bytes of any origin: limits before pixels are allocated, then always grey or RGB."""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.errors import one_line

if TYPE_CHECKING:
    from PIL import Image

# Only what the data sets and people's folders hold. TIFF stays out: rare in folders to train on,
# many pages and codecs in one, and most of the faults ever found in image readers.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".npy")
MAX_SIDE = 16_384
MAX_PIXELS = 64 * 2**20
_MODES = {1: "L", 3: "RGB"}
_NPY = b"\x93NUMPY"
_ORIENTATION = 0x0112  # the tag of EXIF


class UnreadableImageError(Exception):
    """What was given is no image, a damaged one, or not of the kind expected; says why."""


def decode(data: bytes, channels: int, orient: bool = False) -> Image.Image:
    """The image in `data` (JPEG, PNG, WebP, BMP or .npy) as grey (1 channel) or RGB (3).

    A palette is applied, what is transparent is laid on white, 16 bits become 8, CMYK becomes RGB,
    and RGB becomes grey by ITU-R 601. With `orient` an EXIF orientation is applied. A .npy holds
    uint8 [H, W], [H, W, 3] or, as CelebA-HQ's, [1, 3, H, W].
    Raises UnreadableImageError.
    """
    try:
        if data.startswith(_NPY):
            image = _from_npy(data)
        else:
            image = _from_file(data, orient)
        return _converted(image, _MODES[channels])
    except UnreadableImageError:
        raise
    except Exception as error:  # From OSError to struct.error, SyntaxError and MemoryError.
        raise UnreadableImageError(one_line(error).partition(" <")[0]) from error


def check_size(width: int, height: int) -> None:
    """Raises UnreadableImageError for more pixels than are ever decoded."""
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise UnreadableImageError(
            f"{width} x {height} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} together"
        )


def _from_file(data: bytes, orient: bool) -> Image.Image:
    from PIL import Image

    if data[:4] == b"RIFF":
        check_size(*_webp_size(data))  # Pillow makes room for it as soon as it opens one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are checked here, and of odd metadata
        if data.startswith(b"\x89PNG"):
            # Decoding does not look at the checksums of the chunks with pixels.
            with Image.open(io.BytesIO(data), formats=("PNG",)) as unverified:
                check_size(*unverified.size)
                unverified.verify()
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        check_size(*image.size)
        image.load()
        return _oriented(image) if orient else image


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) that a WebP file declares: of the canvas, or of its only frame."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", data[26:30]))
    else:
        raise UnreadableImageError("no WebP image")
    return width, height


def _oriented(image: Image.Image) -> Image.Image:
    from PIL import Image

    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Broken metadata are no reason to refuse the pixels.
        return image
    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _converted(image: Image.Image, mode: str) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((grey * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        mode_between = "RGB"
    else:
        mode_between = mode if image.mode in ("1", "L") else "RGB"
    return image.convert(mode_between).convert(mode)


def _from_npy(data: bytes) -> Image.Image:
    """Never by np.load: it makes room for whatever shape the header claims."""
    from PIL import Image

    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, fortran, dtype = readers[version](file)
    if dtype != np.uint8 or fortran:
        raise UnreadableImageError(f"a .npy of {dtype}; uint8 in C order is expected")
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    pixels = _check_shape(shape)
    check_size(*pixels[1::-1])
    array: NDArray[np.uint8] = np.frombuffer(data, np.uint8, offset=file.tell())
    if array.size != np.prod(shape):
        raise UnreadableImageError(f"a .npy of {array.size:,} bytes for the shape {list(shape)}")
    array = array.reshape(shape)
    if array.ndim == 3 and array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(array))


def _check_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of [H, W], [H, W, 3] or [3, H, W]."""
    if len(shape) == 2:
        return shape
    if len(shape) == 3 and shape[2] == 3:
        return shape[:2]
    if len(shape) == 3 and shape[0] == 3:
        return shape[1:]
    raise UnreadableImageError(f"a .npy of the shape {list(shape)}, which is no image")
