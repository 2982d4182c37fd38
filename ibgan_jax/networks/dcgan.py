"""The convolutional networks of IB-GAN at 64 x 64 pixels (its appendix and the authors' code)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from ibgan_jax.networks.convolution import Conv, ConvTranspose, Initializer
from ibgan_jax.networks.normalisation import BatchNorm
from ibgan_jax.networks.patches import to_blocks, to_pixels

SLOPE = 0.2  # of the leaky ReLU


def on_arc(r: jax.Array) -> jax.Array:
    """Maps each r_j ~ N(0, 1) to a point on an arc, uniformly: [B, r] -> [B, 2 r].

    The angle is (pi / 3) erf(r_j / sqrt(2)), uniform in [-60, 60] degrees; the point is
    sqrt(2) (sin, cos) of it. A normal r looks the same in every rotation, so nothing in it prefers
    its axes. Uniform angles prefer them, as factors of the images that are uniform do. All points
    are equally far from 0, so a large r_j is not also a strong input.
    """
    angle = jnp.pi / 3 * jax.scipy.special.erf(r / jnp.sqrt(2.0))
    return jnp.sqrt(2.0) * jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class Generator(nn.Module):
    """G_theta: representation r [B, r] -> images [B, 64, 64, channels] in [-1, 1].

    Attributes:
      width: g of the authors' tables.
      channels: of the images.
      kernel_init: of all weights.
      arc: whether the first layer takes `on_arc(r)` instead of r.
      pixel_shuffle: whether the last layer gives blocks of 2 x 2 pixels, four times as many
        channels at 32 x 32 (sub-pixel convolution, Shi et al. 2016), and one layer is left out.
    """

    width: int
    channels: int
    kernel_init: Initializer = nn.initializers.normal(0.02)
    arc: bool = False
    pixel_shuffle: bool = False

    @nn.compact
    def __call__(self, r: jax.Array, train: bool) -> jax.Array:
        g = self.width
        r = on_arc(r) if self.arc else r
        for features in (16 * g, 8 * 8 * 4 * g):
            r = BatchNorm()(nn.Dense(features, kernel_init=self.kernel_init)(r), train)
        x = r.reshape(-1, 8, 8, 4 * g)
        layers = ((4 * g, 3, 1), (4 * g, 3, 1), (2 * g, 4, 2), (g, 4, 2))
        for features, size, stride in layers[:-1] if self.pixel_shuffle else layers:
            x = ConvTranspose(features, size, stride, 1, False, self.kernel_init)(x)
            x = BatchNorm()(x, train)
        outputs = self.channels * (4 if self.pixel_shuffle else 1)
        x = ConvTranspose(outputs, 4, 2, 1, kernel_init=self.kernel_init)(x)
        x = to_pixels(x, 2, 0, 0) if self.pixel_shuffle else x
        return jnp.tanh(x)  # [B, 64, 64, channels]


class ConvBlocks(nn.Module):
    """Convolutions with leaky ReLU. Each block is (features, size, stride, pad, batch_norm).

    No block at all is the identity, so a front that is shared by none costs nothing.

    Attributes:
      blocks: as above.
      kernel_init: of all weights.
      unshuffle: whether x is first cut into blocks of 2 x 2 pixels, [B, H / 2, W / 2, 4 C].
    """

    blocks: tuple[tuple[int, int, int, int, bool], ...]
    kernel_init: Initializer = nn.initializers.normal(0.02)
    unshuffle: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = to_blocks(x, 2, 0, 0) if self.unshuffle else x
        for features, size, stride, pad, batch_norm in self.blocks:
            x = Conv(features, size, stride, pad, not batch_norm, self.kernel_init)(x)
            x = BatchNorm(SLOPE)(x, train) if batch_norm else nn.leaky_relu(x, SLOPE)
        return x


class Head(nn.Module):
    """Blocks down to 1 x 1, an optional hidden 1 x 1 convolution, and outputs [B, outputs].

    With one output these are D_w's logits, with z outputs q_phi's mean of z.
    """

    blocks: tuple[tuple[int, int, int, int, bool], ...]
    outputs: int
    hidden: int = 0
    kernel_init: Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = ConvBlocks(self.blocks, self.kernel_init)(x, train)  # [B, 1, 1, 16 d]
        if self.hidden:
            # The authors keep this convolution's bias although BatchNorm follows.
            x = Conv(self.hidden, 1, kernel_init=self.kernel_init)(x)
            x = BatchNorm(SLOPE)(x, train)
        x = Conv(self.outputs, 1, kernel_init=self.kernel_init)(x)
        return x.reshape(-1, self.outputs)


def front_blocks(
    width: int, pixel_shuffle: bool = False
) -> tuple[tuple[int, int, int, int, bool], ...]:
    """The three strided blocks, 64 x 64 -> 8 x 8, that D_w and q_phi share on CelebA and Chairs.

    With `pixel_shuffle` two of them, from blocks of 2 x 2 pixels, 32 x 32.
    """
    multiples = (2, 4) if pixel_shuffle else (1, 2, 4)
    return tuple((width * m, 4, 2, 1, i > 0) for i, m in enumerate(multiples))


def head_blocks(width: int, middle: tuple[int, ...]) -> tuple[tuple[int, int, int, int, bool], ...]:
    """The blocks behind them, 8 x 8 -> 1 x 1; `middle` are the 3 x 3 blocks' multiples of width."""
    return (*((width * m, 3, 1, 1, True) for m in middle), (width * 16, 8, 1, 0, True))
