"""What convolutions as matrix products are made of: the product, and pairs of adjoint maps."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import lax


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


def adjoint_pair(forward: Callable, adjoint: Callable, numbers: int) -> tuple[Callable, Callable]:
    """The two linear maps, each the other's derivative under reverse mode, to any order.

    Left to itself JAX pads the cotangent of every slice to the whole array and adds them all up.

    Args:
      forward, adjoint: (x, *geometry) -> y and (y, *geometry) -> x; x and y are trees of arrays.
      numbers: how many the geometry has; they are static.
    """
    static = tuple(range(1, numbers + 1))
    pair = jax.custom_vjp(forward, static), jax.custom_vjp(adjoint, static)
    for first, second in (pair, pair[::-1]):
        first.defvjp(
            lambda x, *geometry, first=first: (first(x, *geometry), None),
            lambda *saved, second=second: (second(saved[-1], *saved[:-2]),),
        )
    return pair
