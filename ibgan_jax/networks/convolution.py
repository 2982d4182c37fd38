"""Convolutions as matrix products (NHWC), one formulation for scan, vmap, CPU and GPU.

A convolution whose kernel size is a multiple m of its stride s reads s x s blocks of pixels, m x m
blocks for each output pixel. Where m is 2 or 3 and outputs come in pairs, it is minimal filtering:
(m + 1)^2 products for each 2 x 2 outputs (`winograd`). Elsewhere the patches are m * s * m strided
slices, stacked, and the convolution is one product (`patches`). Its transpose is the exact adjoint.

Lax's own convolutions are slow here where it counts: their gradients collapse inside `lax.scan` on
the CPU, and under `vmap` they turn into grouped convolutions. They serve as the oracle in the
tests, and, where no gradient is wanted, for the one kind of layer at which they are faster
(`_wide`).

Parameters have the shapes of `nn.Conv` and of `nn.ConvTranspose(transpose_kernel=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from flax import linen as nn
from jax import lax

from ibgan_jax.networks import winograd
from ibgan_jax.networks.linear_maps import product
from ibgan_jax.networks.patches import fold, unfold

Initializer = Callable[..., jax.Array]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def _blocks(size: int, stride: int) -> int:
    if size % stride:
        raise ValueError(f"kernel size {size} must be a multiple of the stride {stride}")
    return size // stride


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """Cross-correlation of x [B, H, W, C] with kernel [k, k, C, N] -> [B, h, w, N].

    Raises:
      ValueError: the kernel size is no multiple of the stride, or the padded image is none.
    """
    _check(x, kernel, stride, pad)
    if not _wide(x, kernel, pad):
        return _product_of(x, kernel, stride, pad)
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=LAYOUT
    )


def _convolve_forward(
    x: jax.Array, kernel: jax.Array, stride: int, pad: int
) -> tuple[jax.Array, Callable]:
    _check(x, kernel, stride, pad)
    return jax.vjp(lambda x, kernel: _product_of(x, kernel, stride, pad), x, kernel)


convolve.defvjp(_convolve_forward, lambda stride, pad, pull_back, cotangent: pull_back(cotangent))


def _product_of(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    size, _, channels, features = kernel.shape
    blocks = _blocks(size, stride)
    h, w = ((n + 2 * pad) // stride - blocks + 1 for n in x.shape[1:3])
    if _filtered(h, w, kernel, stride):
        entries = winograd.analyse(x, blocks, stride, pad)
        entries = _products(entries, winograd.transform(kernel, blocks))
        return winograd.join(entries, blocks)
    patches = unfold(x, blocks, stride, pad)
    return _products([patches], [kernel.reshape(size * size * channels, features)])[0]


def _products(images: list[jax.Array], matrices: list[jax.Array]) -> list[jax.Array]:
    """Each [B, h, w, K] times its [K, N] -> [B, h, w, N]."""
    return [
        product(x.reshape(-1, x.shape[-1]), matrix).reshape(*x.shape[:-1], -1)
        for x, matrix in zip(images, matrices, strict=True)
    ]


def _filtered(h: int, w: int, kernel: jax.Array, stride: int) -> bool:
    """Whether minimal filtering serves a convolution with h x w outputs.

    Not for few channels: products less deep than 16 cost more in layout than they save.
    """
    size, _, channels, _ = kernel.shape
    pairs = h % 2 == w % 2 == 0
    return pairs and size // stride in winograd.MATRICES and stride**2 * channels >= 16


def _wide(x: jax.Array, kernel: jax.Array, pad: int) -> bool:
    """Whether a patch is so wide beside its output that lax is faster without a gradient.

    Lax packs patches on the fly. It takes a third of the time for the VAE encoder's second layer,
    whose patches are 16 times as wide, and about the same at 8 times.
    """
    size, _, channels, features = kernel.shape
    whole = x.shape[1] + 2 * pad == x.shape[2] + 2 * pad == size  # x is the patch
    return not whole and size**2 * channels >= 16 * features


def _check(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> None:
    _blocks(kernel.shape[0], stride)
    if (x.shape[1] + 2 * pad) % stride or (x.shape[2] + 2 * pad) % stride:
        raise ValueError(f"padded image {x.shape} must be a multiple of the stride {stride}")


def convolve_transpose(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """The adjoint of `convolve` in its image: x [B, h, w, C], kernel [k, k, N, C] -> [B, H, W, N].

    Raises:
      ValueError: the kernel size is no multiple of the stride.
    """
    size, _, features, channels = kernel.shape
    blocks = _blocks(size, stride)
    if _filtered(*x.shape[1:3], kernel, stride):
        matrices = [matrix.T for matrix in winograd.transform(kernel, blocks)]
        entries = _products(winograd.spread(x, blocks), matrices)
        return winograd.synthesise(entries, blocks, stride, pad)
    patches = _products([x], [kernel.reshape(size * size * features, channels).T])[0]
    return fold(patches, blocks, stride, pad)


class Conv(nn.Module):
    """`nn.Conv` with square kernels, as a matrix product. x [B, H, W, C] -> [B, h, w, features]."""

    features: int
    size: int
    stride: int = 1
    pad: int = 0
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        y = convolve(x, self.param("kernel", self.kernel_init, shape), self.stride, self.pad)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        return y


class ConvTranspose(nn.Module):
    """`nn.ConvTranspose(transpose_kernel=True)` with square kernels, as a matrix product.

    x [B, h, w, C] -> [B, (h - 1) stride + size - 2 pad, ..., features].
    """

    features: int
    size: int
    stride: int = 1
    pad: int = 0
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, self.features, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        y = convolve_transpose(x, kernel, self.stride, self.pad)
        if self.use_bias:
            y = y + self.param("bias", nn.initializers.zeros, (self.features,))
        return y
