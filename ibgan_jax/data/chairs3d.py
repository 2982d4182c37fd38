"""3D Chairs: 1,393 chairs in 62 views, renders of 600 x 600 pixels on white (Aubry et al. 2014).

The middle 450 x 450 pixels are kept and resized, as in ID-GAN's public code; grey for IB-GAN, RGB
for ID-GAN. Labels are the chair, the elevation and the azimuth, each counted from 0 in the order of
what the names of the files say: CHAIR/renders/image_NUMBER_pELEVATION_tAZIMUTH_r096.png.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data.published import (
    ImageSet,
    PublishedFile,
    Source,
    centre,
    locate,
    missing,
    must_exist,
)

CROP = 450
IMAGES = PublishedFile(
    "rendered_chairs.tar",
    "86,366 PNGs, some GB",
    "https://www.di.ens.fr/willow/research/seeing3Dchairs/data/rendered_chairs.tar",
)
LABELS = ("chair", "elevation", "azimuth")
_NAME = re.compile(r"(?:.*/)?([^/]+)/renders/(image_\d+_p(\d+)_t(\d+)_r\d+\.png)")


def find(path: Path) -> Source:
    """rendered_chairs.tar, or the folder it was unpacked to."""
    must_exist(path)
    images = path if path.is_file() else locate(path, IMAGES.name, "rendered_chairs")
    if images is None:
        raise missing(path, "chairs3d", IMAGES.name, (IMAGES,))
    return Source(archives=(images,), key=key, label_names=LABELS, labels=labels)


def key(name: str) -> str | None:
    """CHAIR/FILE of a render."""
    match = _NAME.fullmatch(name)
    return f"{match[1]}/renders/{match[2]}" if match else None


def labels(keys: Sequence[str]) -> NDArray[np.int32]:
    """int32 [n, 3]: chair, elevation and azimuth, the smallest of each being 0."""
    matches = [_NAME.fullmatch(key) for key in keys]
    values = [[match[1] for match in matches]]
    values += [[int(match[group]) for match in matches] for group in (3, 4)]
    return np.stack([np.unique(v, return_inverse=True)[1] for v in values], -1).astype(np.int32)


def _chairs(name: str, channels: int, colour: str) -> ImageSet:
    return ImageSet(
        name=name,
        channels=channels,
        resolutions=(64, 128, 256),
        about=f"3D Chairs, {colour}, the middle {CROP} x {CROP} of 600 x 600 pixels "
        "(Aubry et al. 2014)",
        files=(IMAGES,),
        find=find,
        crop=lambda image: centre(image, CROP),
    )


CHAIRS3D = _chairs("chairs3d", 1, "grey")
CHAIRS3D_RGB = _chairs("chairs3d_rgb", 3, "RGB")
