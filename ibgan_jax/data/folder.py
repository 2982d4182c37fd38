"""Any folder or archive of images: the largest square in the middle, upright, resized.

There are no labels. Images are JPEG, PNG, WebP, BMP or .npy, told by the ends of their names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ibgan_jax.data import decoding
from ibgan_jax.data.published import ImageSet, PublishedFile, Source, must_exist

if TYPE_CHECKING:
    from PIL import Image

FILES = (PublishedFile("a folder, .zip, .tar or .tgz of images", "any size", "your own"),)


def find(path: Path) -> Source:
    """The folder or archive that the path names."""
    must_exist(path)
    return Source(archives=(path,), key=key)


def key(name: str) -> str | None:
    """The name itself, for an image that no system left there."""
    file = name.rpartition("/")[2]
    hidden = file.startswith(".") or "__MACOSX/" in name
    return name if file.lower().endswith(decoding.SUFFIXES) and not hidden else None


def crop(image: Image.Image) -> Image.Image:
    """The largest square in the middle."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


FOLDER = ImageSet(
    name="folder",
    channels=3,
    resolutions=(64, 16, 32, 128, 256, 512, 1024),
    about="a folder of images, the largest square in the middle of each",
    files=FILES,
    find=find,
    crop=crop,
    orient=True,
)
