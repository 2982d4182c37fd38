"""What a convolution lays out for one matrix product: patches of its input, or of its output.

An s-strided convolution with k x k kernels, k = m s, is an unstrided one with m x m kernels between
blocks of s x s pixels. Its product takes either every patch of m x m blocks (`unfold`), or every
block alone, whose products with the m x m taps are then added up (`collect`). Each has an adjoint.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ibgan_jax.networks.linear_maps import adjoint_pair


def _unfold(x: jax.Array, blocks: int, stride: int, pad: int) -> jax.Array:
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


def _fold(patches: jax.Array, blocks: int, stride: int, pad: int) -> jax.Array:
    """The adjoint of `unfold`: patches [B, h, w, k k C] are added up into [B, H, W, C].

    Patches of 16 bits are added up in float32, and the sums are rounded once.
    """
    batch, h, w, depth = patches.shape
    size = blocks * stride
    channels = depth // size**2
    height, width = (h + blocks - 1) * stride, (w + blocks - 1) * stride
    if h == w == 1:
        x = patches.reshape(batch, height, width, channels)
    else:
        pieces = patches.reshape(batch, h, w, blocks, stride, blocks, stride * channels)
        sums = jnp.promote_types(patches.dtype, jnp.float32)
        x = jnp.zeros((), sums)
        for a in range(blocks):
            for b in range(blocks):
                piece = jnp.moveaxis(pieces[:, :, :, a, :, b], 3, 2).astype(sums)
                rest = ((a, blocks - 1 - a), (0, 0), (b, blocks - 1 - b))
                x = x + jnp.pad(piece, ((0, 0), *rest, (0, 0)))
        x = x.reshape(batch, height, width, channels).astype(patches.dtype)
    return x[:, pad : height - pad, pad : width - pad]


unfold, fold = adjoint_pair(_unfold, _fold, 3)


def to_blocks(x: jax.Array, stride: int, pad: int, extra: int) -> jax.Array:
    """Pixels [B, H, W, C] -> blocks of stride x stride pixels [B, H', W', s s C], after padding.

    `extra` columns of empty blocks are added on the right.
    """
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad + extra * stride), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // stride, stride, width // stride, stride, channels)
    return jnp.moveaxis(x, 3, 2).reshape(batch, height // stride, width // stride, -1)


def to_pixels(blocks: jax.Array, stride: int, pad: int, extra: int) -> jax.Array:
    """The adjoint of `to_blocks`: [B, H', W', s s C] -> [B, H, W, C] without the padding."""
    batch, h, w, _ = blocks.shape
    x = jnp.moveaxis(blocks.reshape(batch, h, w, stride, stride, -1), 3, 2)
    x = x.reshape(batch, h * stride, w * stride, -1)
    return x[:, pad : h * stride - pad, pad : (w - extra) * stride - pad]


def _collect(products: jax.Array, size: int, extra: int) -> jax.Array:
    """Products of blocks with m x m taps [B, H', W', m m N] -> sums [B, h, w, N].

    Products of 16 bits are added up in float32, and the sums are rounded once.
    """
    batch, height, width, depth = products.shape
    h, w = height - size + 1, width - size + 1 - extra
    taps = products.reshape(batch, height, width, size**2, depth // size**2)
    total = jnp.zeros((), jnp.promote_types(products.dtype, jnp.float32))
    for a in range(size):
        for b in range(size):
            total = total + taps[:, a : a + h, b : b + w, a * size + b].astype(total.dtype)
    return total.astype(products.dtype)


def _distribute(y: jax.Array, size: int, extra: int) -> jax.Array:
    """The adjoint of `collect`: [B, h, w, N] -> [B, H', W', m m N]."""
    _, h, w, _ = y.shape
    around = size - 1
    y = jnp.pad(y, ((0, 0), (around, around), (around, around + extra), (0, 0)))
    slices = [
        y[:, around - a : h + 2 * around - a, around - b : w + 2 * around + extra - b]
        for a in range(size)
        for b in range(size)
    ]
    return jnp.concatenate(slices, axis=-1)


collect, distribute = adjoint_pair(_collect, _distribute, 2)
