"""What training and metrics ask of a data set, and the one whose images lie on the device."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibgan_jax.data.order import Order, batch_indices
from ibgan_jax.data.variants import Variant

Batch = dict[str, Any]
SPRITE_SHAPE = (64, 64, 1)
PLAIN = Variant()


class Dataset(abc.ABC):
    """Bit-packed binary sprites, one for each combination of their factors, shown by a variant.

    An example goes two ways: `lookup` says on the host what the train step needs for it, and
    `decode`, traced inside the step, makes the image of that. What `decode` reads besides the
    batch is in `arrays`, which every jitted function takes as an argument: an array of this size
    captured by a closure would be copied into the compiled program.

    The factors are the sprite's, then the extra ones that the variant labels, such as a colour.
    There are `size` examples, one a sprite: an example's extra factors follow from its index.
    `notes` are lines for a report.
    """

    source: str
    arrays: dict[str, jax.Array]

    def __init__(
        self,
        name: str,
        factor_names: tuple[str, ...],
        factor_sizes: tuple[int, ...],
        variant: Variant = PLAIN,
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """`factor_names` and `factor_sizes` are the sprite's; `sharding` places `arrays`."""
        self.name = name
        self.variant = variant
        self.notes = variant.notes
        self.factor_names = (*factor_names, *variant.factor_names)
        self.factor_sizes = (*factor_sizes, *variant.factor_sizes)
        self.image_shape = (*SPRITE_SHAPE[:2], variant.channels)
        self.size = math.prod(factor_sizes)
        self.arrays = jax.device_put(dict(variant.arrays), sharding)
        self._sprite_factors = len(factor_sizes)

    @abc.abstractmethod
    def lookup(self, indices: ArrayLike) -> Batch:
        """What the step takes for examples int [...]: a dict of host arrays, leading axes [...].

        Raises ValueError when an index is outside [0, size).
        """

    @abc.abstractmethod
    def _records(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """The packed records uint8 [..., bytes] of a batch; pure JAX."""

    def decode(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """A batch of `lookup` -> images float32 [..., *image_shape] in [-1, 1]; pure JAX.

        Pass `self.arrays` into the jitted function and from there into this one.
        """
        return self._show(arrays, batch, self.variant.draw(batch["index"]))

    def _show(self, arrays: dict[str, jax.Array], batch: Batch, extra: jax.Array) -> jax.Array:
        """As `decode`, with these extra factors int [..., E] instead of the examples' own."""
        sprites = unpack(self._records(arrays, batch), SPRITE_SHAPE)
        return self.variant.paint(arrays, sprites, extra, batch["index"])

    def index_of(self, factors: ArrayLike) -> NDArray[np.int64]:
        """Factor indices int [..., F] -> example indices int64 [...] (the last varies fastest).

        It is the example of that sprite, whatever the extra factors. Raises ValueError when a
        factor is out of range.
        """
        columns = tuple(np.moveaxis(np.asarray(factors), -1, 0))
        combination = np.asarray(np.ravel_multi_index(columns, self.factor_sizes), np.int64)
        return combination // math.prod(self.variant.factor_sizes)

    def factors_of(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Example indices int [...] -> factor indices int64 [..., F]; `index_of` undone.

        `images` of them are what training sees of these examples.
        """
        indices = np.asarray(indices)
        sprite = np.unravel_index(indices, self.factor_sizes[: self._sprite_factors])
        extra = np.asarray(self._jitted_draw(indices.astype(np.int32)))
        return np.concatenate([np.stack(sprite, axis=-1), extra], axis=-1, dtype=np.int64)

    def images(self, factors: ArrayLike) -> jax.Array:
        """Images of factor indices int [B, F]: float32 [B, *image_shape] in [-1, 1].

        Raises ValueError when a factor is out of range.
        """
        batch = self.lookup(self.index_of(factors))
        extra = np.asarray(factors)[..., self._sprite_factors :].astype(np.int32)
        return self._jitted_show(self.arrays, batch, extra)

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
        for step in range(first_step, last_step, steps_per_dispatch):
            steps = min(steps_per_dispatch, last_step - step)
            yield self.lookup(batch_indices(orders, step, steps, batch_size)[..., part])

    @functools.cached_property
    def _jitted_show(self) -> Any:
        return jax.jit(self._show)

    @functools.cached_property
    def _jitted_draw(self) -> Any:
        return jax.jit(self.variant.draw)

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
        variant: Variant = PLAIN,
    ) -> None:
        """Put `records` uint8 [N, bytes] on the default device, or wherever `sharding` says.

        Raises ValueError when N is not the number of the sprites' factor combinations.
        """
        super().__init__(name, factor_names, factor_sizes, variant, sharding)
        if records.shape != (self.size, math.prod(SPRITE_SHAPE) // 8):
            raise ValueError(f"records have shape {records.shape}, factors {factor_sizes}")
        self.source = source
        self.arrays["records"] = jax.device_put(records, sharding)

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
