"""What training, metrics and pictures ask of a data set."""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibgan_jax.data.feed import Batch, Feed
from ibgan_jax.data.order import Order, batch_indices


class Dataset(abc.ABC):
    """`size` examples, each an image made of a record of `feed`.

    An example goes two ways: `lookup` says on the host what the train step needs for it, and
    `decode`, traced inside the step, makes the image of that. What `decode` reads besides the
    batch is in `arrays`, which every jitted function takes as an argument: an array of this size
    captured by a closure would be copied into the compiled program.

    Attributes:
      name, source.
      size: examples; a multiple of the feed's records, example i being made of record i % N.
      image_shape: (H, W, C).
      arrays: on the device.
      factor_names, factor_sizes: of the ground truth; empty where none is known.
      identity: what tells this set of images from another of the same name.
      notes: lines for a report.
    """

    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    identity: str = ""
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        feed: Feed,
        name: str,
        size: int,
        image_shape: tuple[int, int, int],
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """`sharding` is where images that are asked for by themselves are put.

        Raises ValueError when `size` is not a multiple of the feed's records.
        """
        if not len(feed) or size % len(feed):
            raise ValueError(f"{len(feed)} records cannot make {size} examples")
        self.feed, self.name, self.size, self.image_shape = feed, name, size, image_shape
        self.source, self.sharding = feed.source, sharding
        self.arrays = dict(feed.arrays)

    @abc.abstractmethod
    def _show(self, arrays: dict[str, jax.Array], records: jax.Array, index: Any) -> jax.Array:
        """Records uint8 [..., bytes] of examples int [...] -> images; pure JAX."""

    def lookup(self, indices: ArrayLike) -> Batch:
        """What the step takes for examples int [...]: a dict of host arrays, leading axes [...].

        Raises ValueError when an index is outside [0, size).
        """
        index = self._checked(indices)
        return {"index": index, **self.feed.lookup(index % len(self.feed))}

    def decode(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """A batch of `lookup` -> images float32 [..., *image_shape] in [-1, 1]; pure JAX.

        Pass `self.arrays` into the jitted function and from there into this one.
        """
        return self._show(arrays, self._records(arrays, batch), batch["index"])

    def _records(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        return self.feed.records(arrays, batch, batch["index"] % len(self.feed))

    def examples(self, indices: ArrayLike) -> jax.Array:
        """The images float32 [B, *image_shape] that training sees of examples int [B].

        Raises ValueError when an index is outside [0, size).
        """
        return self._jitted_decode(self.arrays, self.lookup(indices))

    def batches(
        self,
        orders: Sequence[Order],
        first_step: int,
        last_step: int,
        steps_per_dispatch: int,
        batch_size: int,
        part: slice = slice(None),
    ) -> Iterator[Batch]:
        """The batches of steps first_step .. last_step - 1, K = steps_per_dispatch at a time.

        Yields what `lookup` gives for indices [P, K, B], P the number of `orders`; the position
        follows from `first_step` alone. The last dispatch is shorter where K does not divide the
        steps. `part` is the share of each global batch that this process feeds.
        """

        def load(step: int) -> Batch:
            steps = min(steps_per_dispatch, last_step - step)
            return self.lookup(batch_indices(orders, step, steps, batch_size)[..., part])

        return self.feed.ahead(load, range(first_step, last_step, steps_per_dispatch))

    @functools.cached_property
    def _jitted_decode(self) -> Any:
        return jax.jit(self.decode, out_shardings=self.sharding)

    def _checked(self, indices: ArrayLike) -> NDArray[np.int32]:
        array = np.asarray(indices)
        if array.size and not (array.min() >= 0 and array.max() < self.size):
            raise ValueError(
                f"indices must be in [0, {self.size}), "
                f"got values from {array.min()} to {array.max()}"
            )
        return array.astype(np.int32)
