"""dSprites and its variants: images of which every factor is known."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ibgan_jax import distributed
from ibgan_jax.data.dataset import Dataset
from ibgan_jax.data.feed import Batch, Feed
from ibgan_jax.data.variants import Variant

SPRITE_SHAPE = (64, 64, 1)
PLAIN = Variant()


class SpriteDataset(Dataset):
    """Bit-packed binary sprites, one for each combination of their factors, shown by a variant.

    The factors are the sprite's, then the extra ones that the variant labels, such as a colour.
    There are `size` examples, one a sprite: an example's extra factors follow from its index.
    """

    def __init__(
        self,
        feed: Feed,
        name: str,
        factor_names: tuple[str, ...],
        factor_sizes: tuple[int, ...],
        variant: Variant = PLAIN,
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """`factor_names` and `factor_sizes` are the sprite's; `sharding` places variant and images.

        Raises ValueError when the feed's records are not as many as combinations of factors.
        """
        size = math.prod(factor_sizes)
        if len(feed) != size:
            raise ValueError(f"{len(feed)} records for {size} combinations of factors")
        super().__init__(feed, name, size, (*SPRITE_SHAPE[:2], variant.channels), sharding)
        self.variant = variant
        self.notes = variant.notes
        self.factor_names = (*factor_names, *variant.factor_names)
        self.factor_sizes = (*factor_sizes, *variant.factor_sizes)
        self.arrays |= distributed.place(dict(variant.arrays), sharding)
        self._sprite_factors = len(factor_sizes)

    def _show(self, arrays: dict[str, jax.Array], records: jax.Array, index: Any) -> jax.Array:
        return self._paint(arrays, records, index, self.variant.draw(index))

    def _paint(
        self, arrays: dict[str, jax.Array], records: jax.Array, index: Any, extra: jax.Array
    ) -> jax.Array:
        return self.variant.paint(arrays, unpack(records, SPRITE_SHAPE), extra, index)

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

        `images` of them are the `examples`.
        """
        indices = np.asarray(indices)
        sprite = np.unravel_index(indices, self.factor_sizes[: self._sprite_factors])
        extra = np.asarray(self._jitted_draw(indices.astype(np.int32)))
        return np.concatenate([np.stack(sprite, axis=-1), extra], axis=-1, dtype=np.int64)

    def images(self, factors: ArrayLike) -> jax.Array:
        """Images of factor indices int [B, F]: float32 [B, *image_shape] in [-1, 1].

        Raises ValueError when a factor is out of range.
        """
        return self._jitted_images(self.arrays, self.lookup_factors(factors))

    def lookup_factors(self, factors: ArrayLike) -> Batch:
        """What `decode_factors` takes for factor indices int [..., F]: host arrays [...].

        Raises ValueError when a factor is out of range.
        """
        extra = np.asarray(factors)[..., self._sprite_factors :].astype(np.int32)
        return {"extra": extra, **self.lookup(self.index_of(factors))}

    def decode_factors(self, arrays: dict[str, jax.Array], batch: Batch) -> jax.Array:
        """A batch of `lookup_factors` -> images float32 [..., *image_shape]; pure JAX.

        Pass `self.arrays` into the jitted function and from there into this one.
        """
        records = self._records(arrays, batch)
        return self._paint(arrays, records, batch["index"], batch["extra"])

    @functools.cached_property
    def _jitted_images(self) -> Any:
        return jax.jit(self.decode_factors, out_shardings=self.sharding)

    @functools.cached_property
    def _jitted_draw(self) -> Any:
        return jax.jit(self.variant.draw)


def unpack(records: jax.Array, image_shape: tuple[int, int, int]) -> jax.Array:
    """Packed uint8 [..., bytes] -> float32 [..., *image_shape] of -1 and 1; highest bit first."""
    shifts = jnp.arange(7, -1, -1, dtype=jnp.uint8)
    bits = (records[..., None] >> shifts) & jnp.uint8(1)
    return 2 * bits.reshape(*records.shape[:-1], *image_shape).astype(jnp.float32) - 1
