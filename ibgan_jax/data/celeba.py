"""CelebA: 202,599 aligned faces, 178 x 218 JPEGs (Liu et al. 2015), at 64, 128 or 256 pixels.

The middle 160 x 160 pixels are kept and resized, as in ID-GAN's public code; IB-GAN's says only
"center cropped". Labels are the 40 attributes (0 or 1; published as -1 or 1) and then the 10
coordinates of the landmarks, in pixels of the uncropped image, as far as their files are there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data.entry import shown
from ibgan_jax.data.published import (
    ImageSet,
    PublishedFile,
    Source,
    centre,
    locate,
    missing,
    must_exist,
)
from ibgan_jax.errors import UserError

CROP = 160
_WHERE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
IMAGES = PublishedFile("img_align_celeba.zip", "1,443,490,838 bytes", _WHERE)
ATTRIBUTES = PublishedFile("list_attr_celeba.txt", "26,721,026 bytes", _WHERE, needed=False)
LANDMARKS = PublishedFile(
    "list_landmarks_align_celeba.txt", "12,156,055 bytes", _WHERE, needed=False
)
FILES = (IMAGES, ATTRIBUTES, LANDMARKS)
_NAME = re.compile(r"(?:.*/)?(\d{6}\.jpg)")


def find(path: Path) -> Source:
    """img_align_celeba.zip (or the folder it was unpacked to) and the label files beside it."""
    must_exist(path)
    images = path if path.is_file() else locate(path, IMAGES.name, "img_align_celeba")
    if images is None:
        raise missing(path, "celeba", IMAGES.name, FILES)
    notes = [
        found
        for file in (ATTRIBUTES, LANDMARKS)
        if (found := locate(path, file.name) or locate(images.parent, file.name))
    ]
    tables = [read_table(note, binary=note.name == ATTRIBUTES.name) for note in notes]
    label_names = tuple(name for names, _ in tables for name in names)

    def labels(keys: Sequence[str]) -> NDArray[np.int32]:
        values = [[value for _, rows in tables for value in rows[key]] for key in keys]
        return np.array(values, np.int32).reshape(len(keys), len(label_names))

    def key(name: str) -> str | None:
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        for note, (_, rows) in zip(notes, tables, strict=True):
            if match[1] not in rows:
                raise UserError(f"{note} says nothing of {match[1]}, which is in {images}")
        return match[1]

    return Source(
        archives=(images,),
        key=key,
        notes=tuple(notes),
        label_names=label_names,
        labels=labels,
    )


def read_table(path: Path, binary: bool) -> tuple[list[str], dict[str, list[int]]]:
    """(column names, {file name: values}) of a label file: a count, the names, a line a file.

    With `binary` -1 and 1 become 0 and 1. Raises UserError for any other layout.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        names, rows = lines[1].split(), {}
        for line in lines[2:]:
            name, *values = line.split()
            rows[name] = [int(value) for value in values]
        sizes = {len(row) for row in rows.values()}
        if sizes != {len(names)} or len(rows) != int(lines[0]):
            raise ValueError(f"{len(rows)} lines of {sizes} values for {lines[0]} of {len(names)}")
        if binary:
            rows = {name: [(-1, 1).index(value) for value in row] for name, row in rows.items()}
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} is not as published, a count, {'attribute' if binary else 'landmark'} names "
            f"and a line for each file ({shown(str(error))})"
        ) from error
    return names, rows


CELEBA = ImageSet(
    name="celeba",
    channels=3,
    resolutions=(64, 128, 256),
    about=f"CelebA, aligned faces, the middle {CROP} x {CROP} pixels (Liu et al. 2015)",
    files=FILES,
    find=find,
    crop=lambda image: centre(image, CROP),
)
