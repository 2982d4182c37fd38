"""Photographs and renders: images of which no factor is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ibgan_jax import memory
from ibgan_jax.data.dataset import Dataset
from ibgan_jax.data.feed import Feed, Reader, ResidentFeed, StreamedFeed
from ibgan_jax.data.image_sets import IMAGE_SETS
from ibgan_jax.errors import UserError

_AT_ONCE = 4096  # images decoded at a time
_SHARE = 0.5  # of the memory that is free: what images may take; the rest is for training


class ImageDataset(Dataset):
    """Images of one size, their records raw pixels uint8 [H * W * C]."""

    def __init__(
        self,
        feed: Feed,
        name: str,
        image_shape: tuple[int, int, int],
        mirror: bool = False,
        identity: str = "",
        notes: tuple[str, ...] = (),
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """With `mirror` every image is also an example turned left to right, the N-th after it."""
        super().__init__(feed, name, len(feed) * (2 if mirror else 1), image_shape, sharding)
        self.identity, self.notes = identity, notes

    def _show(self, arrays: dict[str, jax.Array], records: jax.Array, index: Any) -> jax.Array:
        del arrays
        images = records.reshape(*records.shape[:-1], *self.image_shape)
        if self.size > len(self.feed):
            mirrored = jnp.asarray(index >= len(self.feed))[..., None, None, None]
            images = jnp.where(mirrored, images[..., ::-1, :], images)
        return images.astype(jnp.float32) / 127.5 - 1


def load(
    name: str,
    source: str,
    directory: Path,
    log: Callable[[str], None],
    sharding: jax.sharding.Sharding | None,
    resolution: int,
    mirror: bool,
) -> ImageDataset:
    """The prepared images of `name` at `resolution` under `directory`; see `data.load`.

    Raises:
      UserError: they are not prepared, damaged, or too many to stay resident.
    """
    try:
        import grain  # noqa: F401 - said here rather than at the first batch

        from ibgan_jax.data.image_records import open_images
    except ImportError as error:
        raise UserError(
            f"{name} needs grain, array_record and tensorflow-datasets ({error}); install them"
        ) from error
    reader = open_images(name, directory, resolution)
    notes = (IMAGE_SETS[name].about, *(("Every image is shown both ways round.",) * mirror))
    if source == "stream":
        feed = StreamedFeed(reader)
    else:
        records = _read_all(reader, math.prod(reader.image_shape), name, log)
        feed = ResidentFeed(records, source, sharding)
    return ImageDataset(feed, name, reader.image_shape, mirror, reader.identity, notes, sharding)


def _read_all(
    reader: Reader, record_bytes: int, name: str, log: Callable[[str], None]
) -> NDArray[np.uint8]:
    """Every record: uint8 [N, record_bytes]."""
    size, room = len(reader) * record_bytes, memory.available()
    if room is not None and size > _SHARE * room.free:
        raise UserError(
            f"{name} takes {size / 2**30:,.1f} GiB of memory and {room.free / 2**30:,.1f} are "
            "free; choose --config.dataset.source=stream"
        )
    log(f"reading {len(reader):,} images of {name}, {size / 2**20:,.0f} MiB")
    records = np.empty((len(reader), record_bytes), np.uint8)
    for first in range(0, len(reader), _AT_ONCE):
        part = range(first, min(first + _AT_ONCE, len(reader)))
        records[first : part.stop] = reader.read(list(part))
    return records
