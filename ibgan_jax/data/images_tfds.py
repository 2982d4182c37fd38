"""Prepared images as a TensorFlow Datasets builder that needs neither TensorFlow nor a download.

This module imports TensorFlow Datasets, so it is itself imported only where files are written.
The builder writes shard by shard: the one for a generator sorts all examples in memory first, and
beyond 1 GB needs TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SPLIT = "train"
Example = tuple[int, dict[str, Any]]


class Images(tfds.core.ShardBasedBuilder):
    """PNGs, their CRC-32, index and labels, in order: record i is example i."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Cropped, resized, as PNG."}  # noqa: RUF012

    def __init__(
        self,
        *,
        name: str,
        about: str,
        image_shape: tuple[int, int, int],
        labels: int,
        shards: Sequence[Callable[[], Iterator[Example]]],
        metadata: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        """`shards` give (index, example) of all examples in order; `labels` is how many each has.

        `metadata` is kept beside the files. The rest is TFDS's: `data_dir`, `file_format`, ...
        """
        self._about, self._image_shape, self._labels = about, image_shape, labels
        self._shards, self._kept = shards, dict(metadata)
        config = tfds.core.BuilderConfig(name=name, description=about)
        super().__init__(config=config, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=self._image_shape, encoding_format="png"),
            "index": tfds.features.Scalar(np.int64),
            "crc": tfds.features.Scalar(np.int64),
        }
        if self._labels:
            features["labels"] = tfds.features.Tensor(shape=(self._labels,), dtype=np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self._about}, prepared by ibgan_jax",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(self._kept),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(
        self, dl_manager: object
    ) -> dict[str, Sequence[Callable[[], Iterator[Example]]]]:
        del dl_manager  # Nothing is downloaded.
        return {SPLIT: self._shards}
