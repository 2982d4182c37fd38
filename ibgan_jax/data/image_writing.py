"""The last step of preparing: converted images into ArrayRecord files, in order and as a whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data import image_records
from ibgan_jax.data.image_parts import Parts, Stored
from ibgan_jax.data.published import ImageSet, Source

_SHARD_BYTES = 128 * 2**20  # TFDS holds the examples of one shard in memory


def write(
    home: Path,
    parts: Parts,
    source: Source,
    image_set: ImageSet,
    resolution: int,
    noted: dict[str, Any],
    log: Callable[[str], None],
) -> None:
    """Writes the images of `parts` in the order of their names into `home`, which appears complete.

    `noted` is kept with them, beside their identity and the names of their labels.
    """
    import tensorflow_datasets as tfds

    from ibgan_jax.data.images_tfds import Images

    images = sorted(parts.images)
    labels = source.labels([image.key for image in images])
    identity = _identity(images, labels, image_set, resolution, source.label_names)
    seed = zlib.crc32(bytes.fromhex(identity))
    metadata = {**noted, "identity": identity, "label_names": list(source.label_names)}

    def shard(first: int, last: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in range(first, last):
            png = parts.read(images[index])
            crc = image_records.checksum(seed, index, labels[index].tolist(), png)
            example = {"image": png, "index": index, "crc": crc}
            yield index, example | ({"labels": labels[index]} if labels.shape[1] else {})

    bounds = _bounds([image.size for image in images])
    builder = Images(
        name=f"{image_set.name}-{resolution}",
        about=image_set.about,
        image_shape=(resolution, resolution, image_set.channels),
        labels=labels.shape[1],
        shards=[lambda part=part: shard(*part) for part in bounds],
        metadata=metadata,
        data_dir=home.parents[2],
        file_format="array_record",
    )
    log(f"writing {len(images):,} images into {home}")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # Nothing is fetched; without this TFDS asks a server whether it has the data set.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    # What TFDS prints speaks of a download.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=config)


def _identity(
    images: Sequence[Stored],
    labels: NDArray[np.int32],
    image_set: ImageSet,
    resolution: int,
    label_names: Sequence[str],
) -> str:
    """A digest of all pixels and labels: equal where everything that is learned from is."""
    what = [image_set.name, resolution, image_set.channels, list(label_names)]
    digest = hashlib.sha256(json.dumps(what).encode())
    for image in images:
        digest.update(bytes.fromhex(image.digest))
    digest.update(labels.astype("<i4").tobytes())
    return digest.hexdigest()


def _bounds(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last) of each shard, none above `_SHARD_BYTES` but for the one example it holds."""
    bounds, first, total = [], 0, 0
    for index, size in enumerate(sizes):
        if total + size > _SHARD_BYTES and index > first:
            bounds.append((first, index))
            first, total = index, 0
        total += size
    return [*bounds, (first, len(sizes))]
