"""Inception V3 as pytorch-fid has it: the network behind FID (Heusel et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from ibgan_jax.errors import UserError

SIDE = 299  # pixels, what the network was trained on
WIDTH = 2048  # of its features

# A convolution's name, outputs and kernel, height first.
Layer = tuple[str, int, tuple[int, int]]


class Inception(nn.Module):
    """Images [B, H, W, C] in [-1, 1], C 1 (shown as grey) or 3 -> features [B, 2048].

    The network of December 2015 that TensorFlow's FID uses, as pytorch-fid ported it. It is
    torchvision's (Szegedy et al. 2016) but that average pooling leaves out what is padded, and
    that the last block pools by the maximum. It has no auxiliary head; its classes are not made.

    Images of any size are resized to 299 x 299 as pytorch-fid does; TensorFlow's own FID places
    pixels otherwise, which changes values somewhat. Modules have the names of the weights' file.
    All is float32, on accelerators too, where convolutions would by default round their factors.

    Raises:
      UserError: the images have neither 1 nor 3 channels.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = resized(as_colour(x))  # [B, 299, 299, 3]
        x = Convolution(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = Convolution(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = Convolution(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))  # [B, 73, 73, 64]
        x = Convolution(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = Convolution(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))  # [B, 35, 35, 192]
        for letter, width in zip("bcd", (32, 64, 64), strict=True):
            x = BlockA(width, name=f"Mixed_5{letter}")(x)
        x = BlockB(name="Mixed_6a")(x)  # [B, 17, 17, 768]
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x = BlockC(width, name=f"Mixed_6{letter}")(x)
        x = BlockD(name="Mixed_7a")(x)  # [B, 8, 8, 1280]
        x = BlockE(average_pool, name="Mixed_7b")(x)
        x = BlockE(max_pool, name="Mixed_7c")(x)  # [B, 8, 8, 2048]
        return x.mean(axis=(1, 2))


def as_colour(images: jax.Array) -> jax.Array:
    """[B, H, W, 1] or [B, H, W, 3] -> [B, H, W, 3]; raises UserError for anything else."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(f"Inception takes images [B, H, W, 1] or [B, H, W, 3]; got {images.shape}")
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))


def resized(images: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, 299, 299, C]: bilinear, pixels are areas, and never smoothed first.

    As `F.interpolate(mode="bilinear", align_corners=False)`: where an image shrinks, pixels between
    the samples go unseen.
    """
    shape = (images.shape[0], SIDE, SIDE, images.shape[-1])
    return jax.image.resize(images, shape, "bilinear", antialias=False)


def average_pool(x: jax.Array) -> jax.Array:
    """The mean of 3 x 3 around each place, without what lies outside: [B, H, W, C] -> the same."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(x: jax.Array) -> jax.Array:
    """The maximum of 3 x 3 around each place: [B, H, W, C] -> the same."""
    return nn.max_pool(x, (3, 3), padding="SAME")


class Convolution(nn.Module):
    """A convolution without bias, BatchNorm by its running statistics, ReLU.

    Attributes:
      features: channels that come out.
      size: of the kernel, height first.
      stride: both ways.
      padding: SAME or VALID; strides of 2 are VALID throughout.
    """

    features: int
    size: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(
            self.features,
            self.size,
            self.stride,
            self.padding,
            use_bias=False,
            precision=jax.lax.Precision.HIGHEST,
            name="conv",
        )(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


def _chain(x: jax.Array, *layers: Layer) -> jax.Array:
    """Convolutions of stride 1 one after the other; called inside a module's `__call__`."""
    for name, features, size in layers:
        x = Convolution(features, size, name=name)(x)
    return x


class BlockA(nn.Module):
    """[B, 35, 35, C] -> [B, 35, 35, 224 + pooled]."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        branches = (
            _chain(x, ("branch1x1", 64, (1, 1))),
            _chain(x, ("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
            _chain(
                x,
                ("branch3x3dbl_1", 64, (1, 1)),
                ("branch3x3dbl_2", 96, (3, 3)),
                ("branch3x3dbl_3", 96, (3, 3)),
            ),
            _chain(average_pool(x), ("branch_pool", self.pooled, (1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockB(nn.Module):
    """[B, 35, 35, 288] -> [B, 17, 17, 768]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        double = _chain(x, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)))
        branches = (
            Convolution(384, (3, 3), 2, "VALID", name="branch3x3")(x),
            Convolution(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double),
            nn.max_pool(x, (3, 3), (2, 2)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockC(nn.Module):
    """[B, 17, 17, 768] -> the same; `width` is that of the chains of 7 x 1 and 1 x 7."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, across, down = self.width, (1, 7), (7, 1)
        branches = (
            _chain(x, ("branch1x1", 192, (1, 1))),
            _chain(
                x,
                ("branch7x7_1", c, (1, 1)),
                ("branch7x7_2", c, across),
                ("branch7x7_3", 192, down),
            ),
            _chain(
                x,
                ("branch7x7dbl_1", c, (1, 1)),
                ("branch7x7dbl_2", c, down),
                ("branch7x7dbl_3", c, across),
                ("branch7x7dbl_4", c, down),
                ("branch7x7dbl_5", 192, across),
            ),
            _chain(average_pool(x), ("branch_pool", 192, (1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockD(nn.Module):
    """[B, 17, 17, 768] -> [B, 8, 8, 1280]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _chain(x, ("branch3x3_1", 192, (1, 1)))
        chained = _chain(
            x,
            ("branch7x7x3_1", 192, (1, 1)),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
        )
        branches = (
            Convolution(320, (3, 3), 2, "VALID", name="branch3x3_2")(single),
            Convolution(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(chained),
            nn.max_pool(x, (3, 3), (2, 2)),
        )
        return jnp.concatenate(branches, axis=-1)


class BlockE(nn.Module):
    """[B, 8, 8, C] -> [B, 8, 8, 2048]; `pool` is average_pool or max_pool."""

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        single = _chain(x, ("branch3x3_1", 384, (1, 1)))
        double = _chain(x, ("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3)))
        branches = (
            _chain(x, ("branch1x1", 320, (1, 1))),
            _chain(single, ("branch3x3_2a", 384, (1, 3))),
            _chain(single, ("branch3x3_2b", 384, (3, 1))),
            _chain(double, ("branch3x3dbl_3a", 384, (1, 3))),
            _chain(double, ("branch3x3dbl_3b", 384, (3, 1))),
            _chain(self.pool(x), ("branch_pool", 192, (1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)
