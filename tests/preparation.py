"""Preparing miniature sets, for the tests of it."""

import io

import archives as miniature
import numpy as np
from PIL import Image

from ibgan_jax.data.image_records import open_images
from ibgan_jax.data.preparing import prepare


def quiet(line):
    del line


def prepared(tmp_path, name, path, resolution=64, **options):
    """(what `prepare` says, the images read back)."""
    result = prepare(name, path, tmp_path / "data", resolution, quiet, **{"workers": 1} | options)
    reader = open_images(name, tmp_path / "data", resolution)
    images = reader.read(list(range(len(reader)))).reshape(-1, *reader.image_shape)
    return result, images, reader


def resized(pixels, side):
    """Independent of how `converting` crops: what a slice of the pixels becomes."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def from_jpeg(pixels):
    """What a JPEG of the miniatures decodes to."""
    return np.asarray(Image.open(io.BytesIO(miniature.encoded(pixels, "JPEG", quality=90))))


def files_of(directory):
    """What was prepared: all bytes but those that tell the time or the way there."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "array_record" in path.name
    }
