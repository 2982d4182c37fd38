"""Variants of dSprites, painted on the device: from a sprite, its index and a seed to an image.

Each variant is a fixed set of as many images as there are sprites: whatever it adds at random is
drawn from (seed, example index) alone, the same at every epoch, from every source, in any batch,
on any backend. (IB-GAN's authors and disentanglement_lib draw anew each time an image is shown.)

What varies in known, discrete steps is a labelled factor of the data set beside the sprite's five;
the rest is nuisance, and no score counts it. A new variant is a class here and its name in
VARIANTS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from numpy.typing import ArrayLike, NDArray

from ibgan_jax.data import painting as paintings

_FACTORS, _NUISANCE = 0, 1  # what a key is for


@dataclasses.dataclass(frozen=True, eq=False)
class Variant:
    """dSprites as they are: no colour, no extra factor. Base of the other variants.

    A variant is `channels`, the extra factors that it labels, and two pure functions of one
    example, `_draw` and `_paint`; `draw` and `paint` map them over any leading axes.
    """

    channels: ClassVar[int] = 1
    factor_names: ClassVar[tuple[str, ...]] = ()
    factor_sizes: ClassVar[tuple[int, ...]] = ()
    about: ClassVar[str] = ""

    seed: int = 0
    arrays: Mapping[str, NDArray] = dataclasses.field(default_factory=dict)
    more: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for a report: what the variant is, and which files it uses."""
        return tuple(line for line in (self.about, self.more) if line)

    def draw(self, index: ArrayLike) -> jax.Array:
        """The extra factors of examples int [...]: int32 [..., E], each in [0, its size)."""
        index = jnp.asarray(index)
        extra = jax.vmap(self._draw)(self._keys(index, _FACTORS))
        return extra.reshape(*index.shape, len(self.factor_sizes))

    def paint(
        self,
        arrays: Mapping[str, jax.Array],
        sprites: jax.Array,
        extra: jax.Array,
        index: ArrayLike,
    ) -> jax.Array:
        """Images float32 [..., H, W, channels] in [-1, 1], of these extra factors int [..., E].

        `arrays` holds the variant's own on the device, `sprites` is [..., H, W, 1] of -1 and 1,
        and `index` int [...] decides the nuisance.
        """
        index = jnp.asarray(index)
        images = jax.vmap(lambda *one: self._paint(arrays, *one))(
            sprites.reshape(-1, *sprites.shape[-3:]),
            extra.reshape(index.size, len(self.factor_sizes)),
            self._keys(index, _NUISANCE),
        )
        return images.reshape(*index.shape, *images.shape[1:])

    def _draw(self, key: jax.Array) -> jax.Array:
        """Key uint32 [2] -> int32 [E]."""
        del key
        return jnp.zeros(0, jnp.int32)

    def _paint(
        self, arrays: Mapping[str, jax.Array], sprite: jax.Array, extra: jax.Array, key: jax.Array
    ) -> jax.Array:
        """One image: sprite [H, W, 1], extra [E], key uint32 [2] -> [H, W, channels]."""
        del arrays, extra, key
        return sprite

    def _keys(self, index: jax.Array, purpose: int) -> jax.Array:
        """Keys uint32 [N, 2] of examples int [...], N in all."""
        # The implementation is named: the default may be configured, and changes the images.
        root = jax.random.fold_in(jax.random.key(self.seed, impl="threefry2x32"), purpose)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(root, index.reshape(-1))
        return jax.random.key_data(keys)


class ColorDsprites(Variant):
    """IB-GAN's Color-dSprites: each channel one of 8 levels k / 7, black included.

    Jeon et al. (AAAI 2021), `CustomTensorDataset2` in the authors' dataset.py. The authors' scores
    (checkout_scores.ipynb) are votes on factors numbered 0 to 5, so the colour counts, and as one
    factor: here `color`, 512 values, red * 64 + green * 8 + blue.
    """

    channels = 3
    factor_names = ("color",)
    factor_sizes = (512,)
    about = (
        "Color-dSprites of IB-GAN: each channel one of 8 levels in [0, 1], black included; "
        "the colour is one labelled factor of 512 values."
    )

    def _draw(self, key: jax.Array) -> jax.Array:
        return (random_bits(key, (1,)) % 512).astype(jnp.int32)

    def _paint(
        self, arrays: Mapping[str, jax.Array], sprite: jax.Array, extra: jax.Array, key: jax.Array
    ) -> jax.Array:
        del arrays, key
        # A table, since a division may be rounded differently on another backend.
        levels = jnp.asarray(np.linspace(-1, 1, 8), jnp.float32)
        color = levels[extra // jnp.array([64, 8, 1]) % 8]
        return jnp.where(sprite > 0, color, -1.0)


class ColorDspritesUniform(Variant):
    """disentanglement_lib's Color-dSprites: each channel uniform in [0.5, 1]; no labelled factor.

    Locatello et al. (ICML 2019), `ColorDSprites`.
    """

    channels = 3
    about = (
        "Color-dSprites of disentanglement_lib: each channel uniform in [0.5, 1]; "
        "the colour is no labelled factor."
    )

    def _paint(
        self, arrays: Mapping[str, jax.Array], sprite: jax.Array, extra: jax.Array, key: jax.Array
    ) -> jax.Array:
        del arrays, extra
        # [0.5, 1] is [0, 1] where black is -1.
        return jnp.where(sprite > 0, uniform(key, (3,)), -1.0)


class NoisyDsprites(Variant):
    """Noisy-dSprites: min(image + noise, 1), noise uniform in [0, 1] per pixel and channel.

    Locatello et al. (ICML 2019), `NoisyDSprites`: white sprites before coloured noise.
    """

    channels = 3
    about = "Noisy-dSprites: min(image + noise, 1), noise uniform in [0, 1] per pixel and channel."

    def _paint(
        self, arrays: Mapping[str, jax.Array], sprite: jax.Array, extra: jax.Array, key: jax.Array
    ) -> jax.Array:
        del arrays, extra
        # min(image + noise, 1) of an image of 0 and 1 is the larger of the two.
        return jnp.maximum(sprite, 2 * uniform(key, (*sprite.shape[:2], 3)) - 1)


class ScreamDsprites(Variant):
    """Scream-dSprites: (patch of the painting + tint) / 2, and 1 - that where the sprite is.

    Locatello et al. (ICML 2019), `ScreamDSprites`: the patch lies anywhere in the painting, and
    the tint, one for each image, is uniform in [0, 1] per channel. (The original never takes the
    painting's last row and column.)
    """

    channels = 3
    about = (
        "Scream-dSprites: a random patch of a painting, half mixed with a random tint; "
        "the sprite shows it inverted."
    )

    def _paint(
        self, arrays: Mapping[str, jax.Array], sprite: jax.Array, extra: jax.Array, key: jax.Array
    ) -> jax.Array:
        del extra
        painting = arrays["painting"]
        size = (*sprite.shape[:2], 3)
        bits = random_bits(key, (5,))
        row, column = (bits[i] % (painting.shape[i] - size[i] + 1) for i in range(2))
        patch = lax.dynamic_slice(painting, (row, column, jnp.uint32(0)), size)
        # (patch + tint) / 2 goes from [0, 1] to [-1, 1], where 1 - x is the negative.
        return (patch + _unit(bits[2:]) - 1) * -sprite


def random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform uint32 of `shape` for a key uint32 [2]: a hash of key and position.

    Two rounds of the integer hash "lowbias32" (Wellons, 2018, hash-prospector). No version of
    JAX can change it, and noise on every pixel of a batch takes a CPU a tenth of the time that it
    takes with `jax.random`.
    """
    position = lax.iota(jnp.uint32, int(np.prod(shape)))
    return _mix(_mix(position ^ key[0]) + key[1]).reshape(shape)


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Multiples of 2^-24 in [0, 1), float32 of `shape`, for a key uint32 [2]."""
    return _unit(random_bits(key, shape))


def _unit(bits: jax.Array) -> jax.Array:
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2**-24)


def _mix(x: jax.Array) -> jax.Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


VARIANTS: dict[str, Callable[..., Variant]] = {
    "dsprites": Variant,
    "color_dsprites": ColorDsprites,
    "color_dsprites_uniform": ColorDspritesUniform,
    "noisy_dsprites": NoisyDsprites,
    "scream_dsprites": ScreamDsprites,
}
NAMES = tuple(VARIANTS)


def make(name: str, seed: int = 0, painting: str = "") -> Variant:
    """The variant called `name` (one of NAMES); `seed` decides all that it draws.

    `painting` is the file behind Scream-dSprites, "" for the generated stand-in; other variants
    have none. Raises UserError when it cannot be used.
    """
    if VARIANTS[name] is ScreamDsprites:
        pixels, note = paintings.read_painting(painting) if painting else paintings.stand_in()
        return ScreamDsprites(seed, {"painting": pixels}, note)
    return VARIANTS[name](seed)
