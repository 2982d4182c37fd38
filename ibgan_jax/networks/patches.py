"""Patches of images, laid out for one matrix product, and their overlap-add."""

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


unfold, fold = adjoint_pair(_unfold, _fold, 3)
