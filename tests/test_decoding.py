"""Images of unknown origin: what they become, and what is refused before there is room for it."""

import io
import struct
import tracemalloc
import zlib

import archives as miniature
import numpy as np
import pytest
from PIL import Image

from ibgan_jax.data import decoding
from ibgan_jax.data.decoding import UnreadableImageError, decode

# Images.

GREY = np.array([[0, 100], [200, 255]], np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], -1)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_kinds_of_pixels():
    grey, colour = Image.fromarray(GREY), Image.fromarray(COLOUR)
    rgb = np.repeat(GREY[..., None], 3, -1)
    for image, wanted in [
        (grey, rgb),
        (colour, COLOUR),
        (grey.point(lambda v: 255 * (v > 150)).convert("1"), np.where(rgb > 150, 255, 0)),
        (colour.quantize(4), COLOUR),
        (Image.fromarray(GREY.astype(np.uint16) * 257), rgb),
    ]:
        np.testing.assert_array_equal(np.asarray(decode(saved(image), 3)), wanted, image.mode)
    for kind in ("WEBP", "BMP"):
        data = saved(colour, kind, **({"lossless": True} if kind == "WEBP" else {}))
        np.testing.assert_array_equal(np.asarray(decode(data, 3)), COLOUR)
    np.testing.assert_array_equal(np.asarray(decode(saved(grey), 1)), GREY)
    luma = (COLOUR @ [0.299, 0.587, 0.114]).round()
    assert np.abs(np.asarray(decode(saved(colour), 1)) - luma).max() <= 1


def test_what_is_transparent_lies_on_white():
    alpha = np.array([[0, 255], [128, 255]], np.uint8)
    shown = 255 - (255 - COLOUR.astype(float)) * alpha[..., None] / 255
    image = Image.fromarray(np.dstack([COLOUR, alpha]))
    assert np.abs(np.asarray(decode(saved(image), 3)) - shown).max() <= 1
    image = Image.fromarray(np.dstack([GREY, alpha]))
    wanted = 255 - (255 - GREY.astype(float)) * alpha / 255
    assert np.abs(np.asarray(decode(saved(image), 1)) - wanted).max() <= 1
    palette = Image.fromarray(GREY).quantize(4)
    first = palette.getpixel((0, 0))
    assert decode(saved(palette, transparency=first), 3).getpixel((0, 0)) == (255, 255, 255)


def test_cmyk():
    image = Image.new("RGB", (16, 16), (255, 0, 0)).convert("CMYK")
    red, green, blue = decode(saved(image, "JPEG", quality=95), 3).getpixel((8, 8))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    image = Image.fromarray(miniature.picture(1, 32, 24))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(image, exif=exif)
    from PIL import ImageOps

    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(decode(data, 3, orient=True)), np.asarray(turned))
    np.testing.assert_array_equal(np.asarray(decode(data, 3)), np.asarray(image))


def test_npy():
    for array in (GREY, COLOUR, COLOUR.transpose(2, 0, 1)[None]):
        file = io.BytesIO()
        np.save(file, array)
        wanted = np.repeat(GREY[..., None], 3, -1) if array is GREY else COLOUR
        np.testing.assert_array_equal(np.asarray(decode(file.getvalue(), 3)), wanted)
    for array in (COLOUR.astype(np.float32), np.array([print], object), np.zeros((2, 2, 7), "u1")):
        file = io.BytesIO()
        np.save(file, array)
        with pytest.raises(UnreadableImageError):
            decode(file.getvalue(), 3)


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 100)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in (chunk, body, b"IEND")
    )


def npy_header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return file.getvalue()


def too_many_pixels():
    jpeg = bytearray(saved(Image.new("RGB", (16, 16)), "JPEG"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">2H", 65500, 65500)
    bmp = bytearray(saved(Image.new("RGB", (16, 16)), "BMP"))
    bmp[18:26] = struct.pack("<2i", 100_000, 100_000)
    canvas = (16383 - 1).to_bytes(3, "little")
    webp = b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<IB3x", 10, 0) + canvas * 2
    return {
        "png": png_header(100_000, 100_000),
        "long png": png_header(2**31 - 1, 1),
        "jpeg": bytes(jpeg),
        "bmp": bytes(bmp),
        "webp": webp,
        "npy": npy_header((100_000, 100_000, 3)),
    }


@pytest.mark.parametrize("kind", list(too_many_pixels()))
def test_too_many_pixels_are_refused_before_there_is_room_for_them(kind):
    data = too_many_pixels()[kind]
    Image.init()  # imports what takes memory of its own
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableImageError, match="pixels"):
            decode(data, 3)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_damaged_images():
    whole = saved(Image.fromarray(miniature.picture(0, 64, 64)))
    for data in (b"", b"GIF89a" + bytes(50), whole[:500], saved(Image.new("L", (9, 9)), "TIFF")):
        with pytest.raises(UnreadableImageError) as caught:
            decode(data, 3)
        assert "0x" not in str(caught.value)  # no address of an object
    for place in range(40, len(whole), 211):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        with pytest.raises(UnreadableImageError):
            decode(bytes(damaged), 3)


def test_a_bomb_of_text(monkeypatch):
    text = b"zTXt" + b"k\0\0" + zlib.compress(bytes(2**26))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    whole = saved(Image.new("RGB", (4, 4)))
    with pytest.raises(UnreadableImageError):
        decode(whole[:33] + chunk + whole[33:], 3)


def test_limits_leave_room_for_every_data_set():
    decoding.check_size(1024, 1024)
    decoding.check_size(8192, 8192)
    for size in [(0, 5), (16_385, 1), (8193, 8193)]:
        with pytest.raises(UnreadableImageError):
            decoding.check_size(*size)
