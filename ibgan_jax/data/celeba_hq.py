"""CelebA-HQ: 30,000 faces of 1024 x 1024 pixels (Karras et al. 2018), at any power of two.

Its authors publish differences to CelebA, from which people make imgHQ00000.npy, ... (uint8
[1, 3, 1024, 1024]) or PNGs; ID-GAN took data1024x1024.zip, made by others. All are read. Nothing is
cropped. There are no labels: the published numbers are not CelebA's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ibgan_jax.data import decoding
from ibgan_jax.data.folder import key
from ibgan_jax.data.published import ImageSet, PublishedFile, Source, locate, must_exist

if TYPE_CHECKING:
    from PIL import Image

FILES = (
    PublishedFile(
        "30,000 PNG or .npy of 1024 x 1024 pixels in a folder, .zip or .tar",
        "94.4 GB as .npy",
        "made with https://github.com/tkarras/progressive_growing_of_gans, or data1024x1024.zip "
        "of https://github.com/suvojit-0x55aa/celebA-HQ-dataset-download",
    ),
)
_ARCHIVES = ("data1024x1024.zip", "data1024x1024.tar")


def find(path: Path) -> Source:
    """The archive at `path` or in it, else the folder itself."""
    must_exist(path)
    packed = [found for name in _ARCHIVES if path.is_dir() and (found := locate(path, name))]
    return Source(archives=(packed[0] if packed else path,), key=key)


def crop(image: Image.Image) -> Image.Image:
    """All of it. Raises UnreadableImageError unless it is 1024 x 1024."""
    if image.size != (1024, 1024):
        width, height = image.size
        raise decoding.UnreadableImageError(f"{width} x {height} pixels, not 1024 x 1024")
    return image


CELEBA_HQ = ImageSet(
    name="celeba_hq",
    channels=3,
    resolutions=(1024, 512, 256, 128, 64),
    about="CelebA-HQ, faces of 1024 x 1024 pixels (Karras et al. 2018)",
    files=FILES,
    find=find,
    crop=crop,
)
