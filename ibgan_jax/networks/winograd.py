"""Minimal filtering: 2 x 2 outputs from m x m kernels by (m + 1)^2 products instead of (2 m)^2.

F(2 x 2, m x m) of Winograd (1980), for convolutions Lavin & Gray (2016, equations 8 to 15):

    Y = A^T [(G g G^T) * (B^T d B)] A

for a tile d of (m + 1) x (m + 1) inputs that overlaps its neighbours by m - 1, a kernel g, and *
the product of each of the (m + 1)^2 entries, here over all tiles and channels at once: a matrix
product. An s-strided convolution is an unstrided one between s x s blocks of pixels, whose
m = k / s; so 4 x 4 kernels of stride 2 take 9 products for 16 and 3 x 3 kernels 16 for 36, and
what is laid out for the products shrinks from 4 to 2.25 and from 9 to 4 times the image.

All maps are linear, exact but for rounding (B and A only add and subtract), and come in adjoint
pairs, so a gradient is filtered the same way.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ibgan_jax.networks.linear_maps import adjoint_pair

Matrix = tuple[tuple[float, ...], ...]
# m -> B^T, G, A^T
MATRICES: dict[int, tuple[Matrix, Matrix, Matrix]] = {
    2: (
        ((1, -1, 0), (0, 1, 0), (0, 1, -1)),
        ((1, 0), (1, 1), (0, 1)),
        ((1, 1, 0), (0, 1, -1)),
    ),
    3: (
        ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)),
        ((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
}


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _combine(signs: Matrix, parts: list[jax.Array]) -> list[jax.Array]:
    """A matrix of 0, 1 and -1 times a vector whose entries are arrays; no work for zeros."""
    sums = []
    for row in signs:
        terms = [p if a > 0 else -p for a, p in zip(row, parts, strict=True) if a]
        sums.append(sum(terms[1:], terms[0]))
    return sums


def _both_ways(matrix: Matrix, parts: list[list[jax.Array]]) -> list[list[jax.Array]]:
    """M P M^T for a matrix P of arrays."""
    columns = zip(*[_combine(matrix, row) for row in parts], strict=True)
    done = [_combine(matrix, list(column)) for column in columns]
    return [list(row) for row in zip(*done, strict=True)]


def _windows(x: jax.Array, blocks: int, axis: int) -> list[jax.Array]:
    """The tiles' entries d_0 .. d_m along an axis of length 2 n + m - 1, each of length n."""
    tiles = (x.shape[axis] - blocks + 1) // 2
    return [
        lax.slice_in_dim(x, i, i + 2 * tiles - 1, stride=2, axis=axis) for i in range(blocks + 1)
    ]


def _overlap_add(parts: list[jax.Array], blocks: int, axis: int) -> jax.Array:
    """The adjoint of `_windows`."""

    def shifted(i: int) -> jax.Array:
        widths = [(0, 0)] * parts[i].ndim
        widths[axis] = (i // 2, 1 - i // 2)
        return jnp.pad(parts[i], widths)

    even, odd = (sum(shifted(i) for i in range(p, blocks + 1, 2)) for p in range(2))
    shape = list(even.shape)
    shape[axis] *= 2
    x = jnp.stack([even, odd], axis + 1).reshape(shape)
    return lax.slice_in_dim(x, 0, shape[axis] + blocks - 3, axis=axis)


def _analyse(x: jax.Array, blocks: int, stride: int, pad: int) -> list[jax.Array]:
    """B^T d B of every tile: image [B, H, W, C] -> (m + 1)^2 arrays [B, n, n', s s C]."""
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // stride, stride, width // stride, stride, channels)
    x = jnp.moveaxis(x, 3, 2).reshape(batch, height // stride, width // stride, -1)
    inputs = MATRICES[blocks][0]
    rows = _combine(inputs, _windows(x, blocks, 1))
    return [entry for row in rows for entry in _combine(inputs, _windows(row, blocks, 2))]


def _synthesise(entries: list[jax.Array], blocks: int, stride: int, pad: int) -> jax.Array:
    """The adjoint of `analyse`: (m + 1)^2 arrays [B, n, n', s s C] -> [B, H, W, C]."""
    outputs = _transposed(MATRICES[blocks][0])
    size = blocks + 1
    rows = [
        _overlap_add(_combine(outputs, entries[i * size : (i + 1) * size]), blocks, 2)
        for i in range(size)
    ]
    x = _overlap_add(_combine(outputs, rows), blocks, 1)
    batch, h, w, depth = x.shape
    x = jnp.moveaxis(x.reshape(batch, h, w, stride, stride, depth // stride**2), 3, 2)
    x = x.reshape(batch, h * stride, w * stride, -1)
    return x[:, pad : h * stride - pad, pad : w * stride - pad]


def _join(entries: list[jax.Array], blocks: int) -> jax.Array:
    """A^T M A of every tile: (m + 1)^2 arrays [B, n, n', N] -> [B, 2 n, 2 n', N]."""
    size = blocks + 1
    grid = [entries[i * size : (i + 1) * size] for i in range(size)]
    tiles = _both_ways(MATRICES[blocks][2], grid)
    batch, h, w, features = entries[0].shape
    y = jnp.stack([jnp.stack(row, 3) for row in tiles], 2)  # [B, n, 2, n', 2, N]
    return y.reshape(batch, 2 * h, 2 * w, features)


def _spread(y: jax.Array, blocks: int) -> list[jax.Array]:
    """The adjoint of `join`: [B, 2 n, 2 n', N] -> (m + 1)^2 arrays [B, n, n', N]."""
    batch, height, width, features = y.shape
    y = y.reshape(batch, height // 2, 2, width // 2, 2, features)
    grid = [[y[:, :, i, :, j] for j in range(2)] for i in range(2)]
    tiles = _both_ways(_transposed(MATRICES[blocks][2]), grid)
    return [entry for row in tiles for entry in row]


analyse, synthesise = adjoint_pair(_analyse, _synthesise, 3)
join, spread = adjoint_pair(_join, _spread, 1)


def transform(kernel: jax.Array, blocks: int) -> list[jax.Array]:
    """G g G^T: kernel [k, k, C, N] -> (m + 1)^2 matrices [s s C, N], k = m s.

    As one product, with what G does to rows and columns: so many small sums compile slowly.
    """
    size, _, channels, features = kernel.shape
    stride = size // blocks
    g = kernel.reshape(blocks, stride, blocks, stride, channels, features)
    g = jnp.moveaxis(g, 2, 1).reshape(blocks**2, -1)
    one_way = np.asarray(MATRICES[blocks][1])
    both_ways = jnp.asarray(np.kron(one_way, one_way), kernel.dtype)
    matrices = jnp.matmul(both_ways, g, precision=lax.Precision.HIGHEST)
    return list(matrices.reshape(-1, stride**2 * channels, features))
