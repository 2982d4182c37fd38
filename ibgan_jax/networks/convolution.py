"""Convolutions as matrix products (NHWC), or as XLA's own; `formulation` chooses which.

A convolution whose kernel size is a multiple m of its stride s reads s x s blocks of pixels, m x m
blocks for each output pixel. Three forms compute it:

- filtered: where m is 2 or 3 and outputs come in pairs, minimal filtering takes (m + 1)^2 products
  for each 2 x 2 outputs (`winograd`); elsewhere it is as below.
- patches: m * s * m strided slices are stacked into patches, and the convolution is one product.
  In 16 bits the products of single blocks are laid out instead where they are fewer (`patches`).
- lax: XLA's own convolution. On a CPU its gradients collapse inside `lax.scan`; under `vmap` it is
  a grouped convolution. It is the oracle in the tests, and where no gradient is wanted it computes
  the one kind of layer at which it is faster on a CPU (`_wide`).

A transposed convolution is the exact adjoint.

Parameters have the shapes of `nn.Conv` and of `nn.ConvTranspose(transpose_kernel=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ibgan_jax.networks import winograd
from ibgan_jax.networks.formulation import Formulation, current
from ibgan_jax.networks.linear_maps import narrow, product, widen
from ibgan_jax.networks.patches import (
    collect,
    distribute,
    fold,
    to_blocks,
    to_pixels,
    unfold,
)

Initializer = Callable[..., jax.Array]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def _blocks(size: int, stride: int) -> int:
    if size % stride:
        raise ValueError(f"kernel size {size} must be a multiple of the stride {stride}")
    return size // stride


def convolve(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """Cross-correlation of x [B, H, W, C] with kernel [k, k, C, N] -> [B, h, w, N].

    Raises:
      ValueError: the kernel size is no multiple of the stride, or the padded image is none.
    """
    _blocks(kernel.shape[0], stride)
    if (x.shape[1] + 2 * pad) % stride or (x.shape[2] + 2 * pad) % stride:
        raise ValueError(f"padded image {x.shape} must be a multiple of the stride {stride}")
    formulation = current()
    if formulation.form == "lax" and not _whole(x, kernel, pad):
        return _stored(lambda x, kernel: _lax(x, kernel, stride, pad), x, kernel, formulation)
    return _convolve(x, kernel, stride, pad, formulation)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
    x: jax.Array, kernel: jax.Array, stride: int, pad: int, formulation: Formulation
) -> jax.Array:
    if formulation.cpu and _wide(x, kernel, pad):
        return _lax(x, kernel, stride, pad)
    return _product_of(x, kernel, stride, pad, formulation)


def _convolve_forward(
    x: jax.Array, kernel: jax.Array, stride: int, pad: int, formulation: Formulation
) -> tuple[jax.Array, Callable]:
    return jax.vjp(lambda x, kernel: _product_of(x, kernel, stride, pad, formulation), x, kernel)


def _convolve_backward(
    stride: int, pad: int, formulation: Formulation, pull_back: Callable, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return pull_back(cotangent)


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _lax(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    dtype = jnp.result_type(x, kernel)  # unlike a product, this takes no two precisions
    x, kernel, around = x.astype(dtype), kernel.astype(dtype), ((pad, pad), (pad, pad))
    return lax.conv_general_dilated(x, kernel, (stride, stride), around, dimension_numbers=LAYOUT)


def _lax_transpose(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    around = kernel.shape[0] - 1 - pad
    padding = ((around, around), (around, around))
    return lax.conv_transpose(
        x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT, transpose_kernel=True
    )


def _stored(
    function: Callable, x: jax.Array, kernel: jax.Array, formulation: Formulation
) -> jax.Array:
    """`function` of x and the kernel, both rounded to the formulation's storage."""
    if formulation.storage is None:
        return function(x, kernel)
    return widen(function(narrow(x, formulation), narrow(kernel, formulation)), formulation)


def _product_of(
    x: jax.Array, kernel: jax.Array, stride: int, pad: int, formulation: Formulation
) -> jax.Array:
    size, _, channels, features = kernel.shape
    blocks = _blocks(size, stride)
    h, w = ((n + 2 * pad) // stride - blocks + 1 for n in x.shape[1:3])
    if _filtered(h, w, kernel, stride, formulation):
        entries = winograd.analyse(x, blocks, stride, pad)
        entries = _products(entries, winograd.transform(kernel, blocks), formulation)
        return winograd.join(entries, blocks)
    if formulation.storage is not None:
        x = narrow(x, formulation)
    if _outputs_laid_out(h, w, kernel, stride, formulation):
        matrices = [_tap_matrix(kernel, stride)]
        extra = (w + blocks - 1) % 2  # an even number of blocks divides into even products
        (products,) = _products([to_blocks(x, stride, pad, extra)], matrices, formulation)
        y = collect(products, blocks, extra)
    else:
        matrices = [kernel.reshape(size * size * channels, features)]
        (y,) = _products([unfold(x, blocks, stride, pad)], matrices, formulation)
    return y if formulation.storage is None else widen(y, formulation)


def _products(
    images: list[jax.Array], matrices: list[jax.Array], formulation: Formulation
) -> list[jax.Array]:
    """Each [B, h, w, K] times its [K, N] -> [B, h, w, N]."""

    def one(x: jax.Array, matrix: jax.Array) -> jax.Array:
        return product(x.reshape(-1, x.shape[-1]), matrix, formulation).reshape(*x.shape[:-1], -1)

    if formulation.cpu or len(images) == 1:
        return [one(x, matrix) for x, matrix in zip(images, matrices, strict=True)]
    return list(jax.vmap(one)(jnp.stack(images), jnp.stack(matrices)))  # in one launch


def _filtered(h: int, w: int, kernel: jax.Array, stride: int, formulation: Formulation) -> bool:
    """Whether minimal filtering serves a convolution with h x w outputs.

    Not for few channels: products less deep than 16 cost more in layout than they save. On an
    accelerator only where it saves half of the products and of the layout: unstrided.
    """
    size, _, channels, _ = kernel.shape
    pairs = h % 2 == w % 2 == 0
    if formulation.form != "filtered" or not (formulation.cpu or stride == 1):
        return False
    return pairs and size // stride in winograd.MATRICES and stride**2 * channels >= 16


def _outputs_laid_out(
    h: int, w: int, kernel: jax.Array, stride: int, formulation: Formulation
) -> bool:
    """Whether a convolution with h x w outputs lays out products instead of patches.

    It then has fewer bytes to move and more FLOP to do, for the border's blocks are multiplied too:
    what a GPU gains from it in 16 bits it loses in float32. Below six tenths XLA also keeps the
    products of both directions in one kernel each.
    """
    size, _, channels, features = kernel.shape
    blocks = size // stride
    patches = h * w * stride**2 * channels
    products = (h + blocks - 1) * (w + blocks - 1) * features
    return formulation.storage is not None and blocks > 1 and products < 0.6 * patches


def _tap_matrix(kernel: jax.Array, stride: int) -> jax.Array:
    """Kernel [k, k, C, N] -> [s s C, m m N]: what each of the m x m taps does to a block."""
    size, _, channels, features = kernel.shape
    taps = kernel.reshape(size // stride, stride, size // stride, stride, channels, features)
    return taps.transpose(1, 3, 4, 0, 2, 5).reshape(stride**2 * channels, -1)


def _whole(x: jax.Array, kernel: jax.Array, pad: int) -> bool:
    """Whether the kernel is as large as the image, which is then its own patch."""
    return x.shape[1] + 2 * pad == x.shape[2] + 2 * pad == kernel.shape[0]


def _wide(x: jax.Array, kernel: jax.Array, pad: int) -> bool:
    """Whether a patch is so wide beside its output that lax is faster without a gradient.

    Lax packs patches on the fly. It takes a third of the time for the VAE encoder's second layer,
    whose patches are 16 times as wide, and about the same at 8 times.
    """
    size, _, channels, features = kernel.shape
    return not _whole(x, kernel, pad) and size**2 * channels >= 16 * features


def convolve_transpose(x: jax.Array, kernel: jax.Array, stride: int, pad: int) -> jax.Array:
    """The adjoint of `convolve` in its image: x [B, h, w, C], kernel [k, k, N, C] -> [B, H, W, N].

    Raises:
      ValueError: the kernel size is no multiple of the stride.
    """
    size, _, features, channels = kernel.shape
    blocks = _blocks(size, stride)
    formulation = current()
    if _filtered(*x.shape[1:3], kernel, stride, formulation):
        matrices = [matrix.T for matrix in winograd.transform(kernel, blocks)]
        entries = _products(winograd.spread(x, blocks), matrices, formulation)
        return winograd.synthesise(entries, blocks, stride, pad)
    if formulation.form == "lax" and x.shape[1:3] != (1, 1):
        return _stored(
            lambda x, kernel: _lax_transpose(x, kernel, stride, pad), x, kernel, formulation
        )
    if formulation.storage is not None:
        x = narrow(x, formulation)
    if _outputs_laid_out(*x.shape[1:3], kernel, stride, formulation):
        matrices = [_tap_matrix(kernel, stride).T]
        extra = (x.shape[2] + blocks - 1) % 2
        (pixels,) = _products([distribute(x, blocks, extra)], matrices, formulation)
        y = to_pixels(pixels, stride, pad, extra)
    else:
        matrices = [kernel.reshape(size * size * features, channels).T]
        (patches,) = _products([x], matrices, formulation)
        y = fold(patches, blocks, stride, pad)
    return y if formulation.storage is None else widen(y, formulation)


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
