"""Convolutions as matrix products (NHWC), one formulation for scan, vmap, CPU and GPU.

A convolution whose kernel size is a multiple m of its stride s reads s x s blocks of pixels, m x m
blocks for each output pixel. So the patches are m * s * m strided slices, stacked, and the
convolution is one matrix product; its transpose is the exact adjoint, one product and an
overlap-add. Lax's own convolutions are slow here where it counts: their gradients collapse inside
`lax.scan` on the CPU, and under `vmap` they turn into grouped convolutions. They serve as the
oracle in the tests, and, where no gradient is wanted, for the one kind of layer at which they are
faster (`_wide`).

Parameters have the shapes of `nn.Conv` and of `nn.ConvTranspose(transpose_kernel=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

Initializer = Callable[..., jax.Array]
LAYOUT = ("NHWC", "HWIO", "NHWC")


@jax.custom_vjp
def product(patches: jax.Array, kernel: jax.Array) -> jax.Array:
    """[M, K] times [K, N] -> [M, N], with gradients in the form that XLA runs fast on the CPU."""
    return lax.optimization_barrier(patches) @ kernel


def _product_forward(patches: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    patches = lax.optimization_barrier(patches)
    return patches @ kernel, (patches, kernel)


def _product_backward(saved: tuple, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    patches, kernel = saved
    rows, depth = patches.shape
    if rows > depth:
        # (dy^T patches)^T behind a barrier: left to itself XLA contracts over the long first axis
        # in a form that takes two to three times as long.
        weights = lax.optimization_barrier(cotangent.T @ patches).T
    else:
        # Here the transpose is what is long, and would end up inside the optimizer's fusion.
        weights = lax.optimization_barrier(patches.T @ cotangent)
    return cotangent @ kernel.T, weights


product.defvjp(_product_forward, _product_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def unfold(x: jax.Array, blocks: int, stride: int, pad: int) -> jax.Array:
    """[B, H, W, C] -> patches [B, h, w, k k C] for kernel size k = blocks * stride.

    Patches are ordered (row, column, channel), as a kernel [k, k, C, N] flattens.
    """
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    batch, height, width, channels = x.shape
    h, w = height // stride - blocks + 1, width // stride - blocks + 1
    if h == w == 1:
        return x.reshape(batch, 1, 1, -1)
    x = x.reshape(batch, height // stride, stride, width // stride, stride * channels)
    slices = [
        x[:, a : a + h, p, b : b + w]
        for a in range(blocks)
        for p in range(stride)
        for b in range(blocks)
    ]
    return jnp.concatenate(slices, axis=-1)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def fold(patches: jax.Array, blocks: int, stride: int, pad: int) -> jax.Array:
    """The adjoint of `unfold`: patches [B, h, w, k k C] are added up into [B, H, W, C]."""
    batch, h, w, depth = patches.shape
    size = blocks * stride
    channels = depth // size**2
    height, width = (h + blocks - 1) * stride, (w + blocks - 1) * stride
    if h == w == 1:
        x = patches.reshape(batch, height, width, channels)
    else:
        pieces = patches.reshape(batch, h, w, blocks, stride, blocks, stride * channels)
        x = 0.0
        for a in range(blocks):
            for b in range(blocks):
                piece = jnp.moveaxis(pieces[:, :, :, a, :, b], 3, 2)
                rest = ((a, blocks - 1 - a), (0, 0), (b, blocks - 1 - b))
                x = x + jnp.pad(piece, ((0, 0), *rest, (0, 0)))
        x = x.reshape(batch, height, width, channels)
    return x[:, pad : height - pad, pad : width - pad]


unfold.defvjp(
    lambda x, *geometry: (unfold(x, *geometry), None),
    lambda blocks, stride, pad, _, cotangent: (fold(cotangent, blocks, stride, pad),),
)
fold.defvjp(
    lambda patches, *geometry: (fold(patches, *geometry), None),
    lambda blocks, stride, pad, _, cotangent: (unfold(cotangent, blocks, stride, pad),),
)


def _blocks(size: int, stride: int) -> int:
    if size % stride:
        raise ValueError(f"kernel size {size} must be a multiple of the stride {stride}")
    return size // stride


def _rows(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


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
    patches = unfold(x, blocks, stride, pad)
    y = product(_rows(patches), kernel.reshape(size * size * channels, features))
    return y.reshape(*patches.shape[:3], features)


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
    patches = product(_rows(x), kernel.reshape(size * size * features, channels).T)
    return fold(patches.reshape(*x.shape[:3], -1), blocks, stride, pad)


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
