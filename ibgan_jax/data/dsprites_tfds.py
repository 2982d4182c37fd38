"""dSprites as a TensorFlow Datasets builder that needs neither TensorFlow nor a download.

This module imports TensorFlow Datasets, so it is itself imported only where files are really
written or read. The official builder would fetch its images and needs TensorFlow to be prepared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from numpy.typing import NDArray

from ibgan_jax.data import sprites

SPLIT = "train"


class DspritesPacked(tfds.core.GeneratorBasedBuilder):
    """Bit-packed rows and factor indices of each sprite, in order: record i is example i."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Rendered images, uint8 [512] packed rows."}  # noqa: RUF012

    def __init__(
        self,
        *,
        records: Callable[[], NDArray[np.uint8]] | None = None,
        factor_sizes: tuple[int, ...] = sprites.FACTOR_SIZES,
        **kwargs: Any,
    ) -> None:
        """`records()` gives uint8 [N, 512], N the product of `factor_sizes`, to be written.

        A builder that only reads needs none. The rest is TFDS's: `data_dir`, `file_format`, ...
        """
        self._make_records = records
        self._factor_sizes = factor_sizes
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "record": tfds.features.Tensor(
                shape=(sprites.RECORD_BYTES,), dtype=np.uint8, encoding="bytes"
            ),
            **{
                f"label_{name}": tfds.features.ClassLabel(num_classes=size)
                for name, size in zip(sprites.FACTOR_NAMES, self._factor_sizes, strict=True)
            },
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="dSprites, rendered by ibgan_jax; images are bit-packed rows.",
            features=tfds.features.FeaturesDict(features),
            # Without this TFDS would write the examples in the order of their hashed keys.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {SPLIT: self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if self._make_records is None:
            raise ValueError("this builder was given no records to write")
        records = self._make_records()
        size = math.prod(self._factor_sizes)
        if len(records) != size:
            raise ValueError(f"{len(records)} records for {size} combinations of factors")
        labels = [f"label_{name}" for name in sprites.FACTOR_NAMES]
        factors = np.stack(np.unravel_index(np.arange(size), self._factor_sizes), axis=-1)
        for index, (record, values) in enumerate(zip(records, factors.tolist(), strict=True)):
            yield index, {"record": record, **dict(zip(labels, values, strict=True))}
