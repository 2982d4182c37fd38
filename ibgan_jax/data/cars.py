"""Stanford Cars: 16,185 photographs of 196 models of cars (Krause et al. 2013), cut to their boxes.

As in ID-GAN's public code, training and test images are taken together, each is cut to its bounding
box and resized to a square without regard to its proportions, and boxes narrower or lower than the
resolution are left out. Boxes are published with 1 for the first pixel, ends included. The label is
the class, counted from 0; -1 where it is not published (test images without the file of labels).
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ibgan_jax.data import archives as reading
from ibgan_jax.data.entry import shown
from ibgan_jax.data.published import (
    Box,
    ImageSet,
    PublishedFile,
    Source,
    locate,
    missing,
    must_exist,
)
from ibgan_jax.errors import UserError, one_line

_WHERE = "https://ai.stanford.edu/~jkrause/car196"
TRAIN = PublishedFile("cars_train.tgz", "979,269,282 bytes", f"{_WHERE}/cars_train.tgz")
TEST = PublishedFile("cars_test.tgz", "977,350,468 bytes", f"{_WHERE}/cars_test.tgz")
DEVKIT = PublishedFile(
    "car_devkit.tgz", "330,960 bytes", "https://ai.stanford.edu/~jkrause/cars/car_devkit.tgz"
)
TEST_LABELS = PublishedFile(
    "cars_test_annos_withlabels.mat",
    "185,758 bytes",
    f"{_WHERE}/cars_test_annos_withlabels.mat",
    needed=False,
)
FILES = (TRAIN, TEST, DEVKIT, TEST_LABELS)
_UNPACKED = {TRAIN.name: "cars_train", TEST.name: "cars_test", DEVKIT.name: "devkit"}


def find(path: Path) -> Source:
    """The three archives (or the folders they were unpacked to), boxes and classes read."""
    must_exist(path)
    found: dict[str, Path] = {}
    for file in (TRAIN, TEST, DEVKIT):
        place = locate(path, file.name, _UNPACKED[file.name])
        if place is None:
            raise missing(path, "cars", file.name, FILES)
        found[file.name] = place
    test_labels = locate(path, TEST_LABELS.name)
    notes = _read_mats(found[DEVKIT.name], "cars_train_annos.mat", "cars_test_annos.mat")
    if test_labels is not None:
        notes["cars_test_annos.mat"] = (test_labels, test_labels.read_bytes())
    boxes: dict[str, Box] = {}
    classes: dict[str, int] = {}
    for part in ("cars_train", "cars_test"):
        _read_boxes(*notes[f"{part}_annos.mat"], part, boxes, classes)
    return Source(
        archives=(found[TEST.name], found[TRAIN.name]),
        key=lambda name: name if name in boxes else None,
        notes=tuple(filter(None, (found[DEVKIT.name], test_labels))),
        label_names=("class",),
        labels=lambda keys: np.array([[classes[key]] for key in keys], np.int32),
        boxes=boxes,
    )


def _read_mats(devkit: Path, *wanted: str) -> dict[str, tuple[Path, bytes]]:
    """{name: (the devkit, bytes)} of the files `wanted`."""
    found: dict[str, tuple[Path, bytes]] = {}
    names = {f"devkit/{name}" for name in wanted}
    for entry in reading.entries(devkit, lambda name: name in names, Counter()):
        if entry.data is not None:
            found[entry.name.rpartition("/")[2]] = (devkit, entry.data)
    for name in wanted:
        if name not in found:
            raise UserError(f"{devkit} holds no devkit/{name}; expected is {DEVKIT}")
    return found


def _read_boxes(
    path: Path, data: bytes, part: str, boxes: dict[str, Box], classes: dict[str, int]
) -> None:
    """Adds the boxes and classes of one annotation file, under PART/FILE."""
    from scipy.io import loadmat

    try:
        rows: Any = np.atleast_1d(loadmat(io.BytesIO(data), squeeze_me=True)["annotations"])
        for row in rows:
            key = f"{part}/{row['fname']}"
            left, top, right, bottom = (
                int(row[f"bbox_{side}"]) for side in ("x1", "y1", "x2", "y2")
            )
            boxes[key] = (left - 1, top - 1, right, bottom)
            classes[key] = int(row["class"]) - 1 if "class" in row.dtype.names else -1
    except Exception as error:  # SciPy raises many kinds over what is no .mat or another one.
        raise UserError(
            f"{path}: the boxes of {part} are not as published "
            f"({shown(one_line(error))}); expected is {DEVKIT}"
        ) from error


CARS = ImageSet(
    name="cars",
    channels=3,
    resolutions=(64, 128, 256),
    about="Stanford Cars, cut to their bounding boxes (Krause et al. 2013)",
    files=FILES,
    find=find,
    crop=lambda image: image,
)
