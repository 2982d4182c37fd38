"""What training and metrics ask of a data set, and the one whose images lie on the device."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibgan_jax.data.order import Order, batch_indices

Batch = dict[str, Any]


class Dataset(abc.ABC):
    """Bit-packed binary images, one for each combination of ground-truth factors.

    An example goes two ways: `lookup` says on the host what the train step needs for it, and
    `decode`, traced inside the step, makes the image of that. What `decode` reads besides the
    batch is in `arrays`, which every jitted function takes as an argument: an array of this size
    captured by a closure would be copied into the compiled program.
    """

    source: str
    arrays: dict[str, jax.Array]

    def __init__(
        self,
        name: str,
        factor_names: tuple[str, ...],
        factor_sizes: tuple[int, ...],
        image_shape: tuple[int, int, int] = (64, 64, 1),
    ) -> None:
        """`image_shape` is height, width (a multiple of 8), channels (1, packed images)."""
        self.name = name
        self.factor_names = tuple(factor_names)
        self.factor_sizes = tuple(factor_sizes)
        self.image_shape = tuple(image_shape)
        self.size = math.prod(self.factor_sizes)

    @abc.abstractmethod
    def lookup(self, indices: ArrayLike) -> Batch:
        """What the step takes for examples int [...]: a dict of host arrays, leading axes [...].

        Raises ValueError when an index is outside [0, size).
        """

    @abc.abstractmethod
    def _records(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """The packed records uint8 [..., bytes] of a batch; pure JAX."""

    def decode(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """A batch of `lookup` -> float32 [..., height, width, 1] of -1 (off) and 1 (on); pure JAX.

        Pass `self.arrays` into the jitted function and from there into this one.
        """
        return unpack(self._records(arrays, batch), self.image_shape)

    def index_of(self, factors: ArrayLike) -> NDArray[np.int64]:
        """Factor indices int [..., F] -> example indices int64 [...] (the last varies fastest).

        Raises ValueError when a factor is out of range.
        """
        columns = tuple(np.moveaxis(np.asarray(factors), -1, 0))
        return np.asarray(np.ravel_multi_index(columns, self.factor_sizes), np.int64)

    def factors_of(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Example indices int [...] -> factor indices int64 [..., F]; `index_of` undone."""
        return np.stack(np.unravel_index(np.asarray(indices), self.factor_sizes), axis=-1).astype(
            np.int64
        )

    def images(self, factors: ArrayLike) -> jax.Array:
        """Images of factor indices int [B, F]: float32 [B, height, width, 1] of -1 and 1."""
        return self._jitted_decode(self.arrays, self.lookup(self.index_of(factors)))

    def batches(
        self,
        order: Order,
        first_step: int,
        last_step: int,
        steps_per_dispatch: int,
        batch_size: int,
        part: slice = slice(None),
    ) -> Iterator[Batch]:
        """The batches of steps first_step .. last_step - 1, K = steps_per_dispatch at a time.

        Yields what `lookup` gives for indices [K, B], in order; the position follows from
        `first_step` alone. The last dispatch is shorter where K does not divide the steps.
        `part` is the share of each global batch that this process feeds.
        """
        for step in range(first_step, last_step, steps_per_dispatch):
            steps = min(steps_per_dispatch, last_step - step)
            yield self.lookup(batch_indices(order, step, steps, batch_size)[:, part])

    @functools.cached_property
    def _jitted_decode(self) -> Any:
        return jax.jit(self.decode)

    def _checked(self, indices: ArrayLike) -> NDArray[np.int32]:
        array = np.asarray(indices)
        if array.size and not (array.min() >= 0 and array.max() < self.size):
            raise ValueError(
                f"indices must be in [0, {self.size}), "
                f"got values from {array.min()} to {array.max()}"
            )
        return array.astype(np.int32)


class ResidentDataset(Dataset):
    """All images on the device, bit-packed; a batch is just its indices."""

    def __init__(
        self,
        records: NDArray[np.uint8],
        name: str,
        factor_names: tuple[str, ...],
        factor_sizes: tuple[int, ...],
        source: str = "resident",
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """Put `records` uint8 [N, bytes] on the default device, or wherever `sharding` says.

        Raises ValueError when N is not the number of factor combinations.
        """
        super().__init__(name, factor_names, factor_sizes)
        if records.shape != (self.size, math.prod(self.image_shape) // 8):
            raise ValueError(f"records have shape {records.shape}, factors {self.factor_sizes}")
        self.source = source
        self.arrays = {"records": jax.device_put(records, sharding)}

    def lookup(self, indices: ArrayLike) -> Batch:
        """{"index": int32 [...]}. Raises ValueError when an index is outside [0, size)."""
        return {"index": self._checked(indices)}

    def _records(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        # `lookup` has checked the range; "clip" spares the default's masking of what is outside.
        return jnp.take(arrays["records"], batch["index"], axis=0, mode="clip")


def unpack(records: jax.Array, image_shape: tuple[int, int, int]) -> jax.Array:
    """Packed uint8 [..., bytes] -> float32 [..., *image_shape] of -1 and 1; highest bit first."""
    shifts = jnp.arange(7, -1, -1, dtype=jnp.uint8)
    bits = (records[..., None] >> shifts) & jnp.uint8(1)
    return 2 * bits.reshape(*records.shape[:-1], *image_shape).astype(jnp.float32) - 1
