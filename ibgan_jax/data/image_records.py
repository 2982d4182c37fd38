"""Prepared images, read at random: decoded by threads, each checked against its CRC-32."""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data import image_sets, png
from ibgan_jax.errors import UserError, blamed_on

VERSION = "1.0.0"
# What `preparing` notes in metadata.json.
NOTED = {
    "identity",
    "label_names",
    "left_out",
    "names",
    "recipe",
    "skipped",
    "source",
    "written",
}
_THREADS = 16
_CHUNK_BYTES = 16 * 2**20  # of pixels, that a thread reads at once: a read costs more than a record
_SAMPLE = 16
_blamed_on = partial(
    blamed_on, verdict="is damaged", advice="; remove that directory and prepare it again"
)


def home(name: str, directory: Path, resolution: int) -> Path:
    """Where under `directory` the set lies once it is prepared."""
    return Path(directory) / "images" / f"{name}-{resolution}" / VERSION


def checksum(identity: int, index: int, labels: Sequence[int], encoded: bytes) -> int:
    """CRC-32 of a stored image, its labels, its place, and the set it belongs to (its CRC-32)."""
    place = struct.pack(f"<q{len(labels)}i", index, *labels)
    return zlib.crc32(encoded, zlib.crc32(place, identity))


def read_metadata(place: Path) -> dict[str, Any]:
    """What was noted at preparing. Raises UserError when that is missing or damaged."""
    with _blamed_on(place):
        metadata = json.loads((place / "metadata.json").read_bytes())
        missing = NOTED - metadata.keys()
        if missing or len(bytes.fromhex(metadata["identity"])) != 32:
            raise ValueError("metadata.json is not as it was written")
        return metadata


class ImageReader:
    """Random access to a prepared set of images; any number of threads may read at once."""

    def __init__(self, place: Path, image_shape: tuple[int, int, int]) -> None:
        """Opens the files in `place`, the directory of a version, and looks at some images.

        Raises UserError when they are damaged, missing, or not those that were prepared.
        """
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        metadata = read_metadata(place)
        self.image_shape = image_shape
        self.identity: str = metadata["identity"]
        self.label_names: tuple[str, ...] = tuple(metadata["label_names"])
        self._place = place
        self._identity = zlib.crc32(bytes.fromhex(self.identity))
        # TFDS's own decoding of a whole example costs more than its parsing and the PNG's together.
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        with _blamed_on(place):
            builder = tfds.builder_from_directory(place)
            self._source = builder.as_data_source("train", deserialize_method=raw)
            if len(self._source) != metadata["written"]:
                raise ValueError(f"{len(self._source)} of {metadata['written']} images")
        self._parse = tf_example_pb2.Example.FromString
        self._size = math.prod(image_shape)
        self.threads = min(_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(self.threads, "images")
        self.read(np.unique(np.linspace(0, len(self) - 1, _SAMPLE).astype(int)).tolist())

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: list[int]) -> NDArray[np.uint8]:
        """Images of `indices` (any order, repeats allowed): uint8 [len(indices), H * W * C].

        Raises IndexError for an index outside, UserError when an image is damaged.
        """
        self._check(indices)
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        share = -(-len(indices) // self.threads)
        chunk = max(1, min(share, _CHUNK_BYTES // self._size))

        def fill(start: int) -> None:
            examples = self._examples(indices[start : start + chunk])
            with _blamed_on(self._place):
                for row, (encoded, _) in enumerate(examples, start):
                    png.decode(encoded, images[row])

        list(self._pool.map(fill, range(0, len(indices), chunk)))
        return images.reshape(len(indices), self._size)

    def labels(self, indices: list[int]) -> NDArray[np.int32]:
        """Labels of `indices`: int32 [len(indices), len(label_names)]. Raises as `read`."""
        self._check(indices)
        found: list[Sequence[int]] = []
        for start in range(0, len(indices), 1024):
            chunk = indices[start : start + 1024]
            found += [labels for _, labels in self._examples(chunk)]
        return np.array(found, np.int32).reshape(len(indices), len(self.label_names))

    def _check(self, indices: Sequence[int]) -> None:
        if indices and not 0 <= min(indices) <= max(indices) < len(self):
            raise IndexError(f"an index outside [0, {len(self)})")

    def _examples(self, indices: Sequence[int]) -> list[tuple[bytes, Sequence[int]]]:
        """(PNG, labels) of each index, as they were written."""
        found: list[tuple[bytes, Sequence[int]]] = []
        with _blamed_on(self._place):
            for index, raw in zip(indices, self._source.__getitems__(indices), strict=True):
                features = self._parse(raw).features.feature
                encoded = features["image"].bytes_list.value[0]
                labels = features["labels"].int64_list.value if self.label_names else ()
                said = features["crc"].int64_list.value[0]
                right = checksum(self._identity, index, labels, encoded)
                if said != right or len(labels) != len(self.label_names):
                    raise ValueError(f"image {index} is not as it was written")
                found.append((encoded, labels))
        return found


def open_images(name: str, directory: Path, resolution: int) -> ImageReader:
    """The images of the set `name` prepared under `directory`.

    Raises UserError for an unknown name or resolution, a set that is not prepared (with the command
    that does it), damaged files, and missing packages.
    """
    image_set = image_sets.get(name, resolution)
    place = home(name, directory, resolution)
    if not place.is_dir():
        raise UserError(
            f"{name} is not prepared at {resolution} pixels in {directory}; first run: python "
            f"launch.py --mode=prepare --config=configs/{name}.py --archives=PATH"
        )
    try:
        return ImageReader(place, (resolution, resolution, image_set.channels))
    except ImportError as error:
        raise UserError(
            f"{name} needs tensorflow-datasets and array_record ({error}); install them"
        ) from error
