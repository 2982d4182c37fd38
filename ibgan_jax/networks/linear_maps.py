"""What convolutions as matrix products are made of: products, roundings, pairs of adjoint maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ibgan_jax.networks.formulation import STORAGE, Formulation


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(patches: jax.Array, kernel: jax.Array, formulation: Formulation) -> jax.Array:
    """[M, K] times [K, N] -> [M, N], stored as the patches are; sums are float32.

    The kernel is float32 and is rounded to the patches' dtype. Where that has 16 bits, cotangents
    come and go multiplied by `formulation.scale`; the kernel's does not.
    """
    return _product_forward(patches, kernel, formulation)[0]


def _product_forward(
    patches: jax.Array, kernel: jax.Array, formulation: Formulation
) -> tuple[jax.Array, tuple]:
    if formulation.cpu:
        patches = lax.optimization_barrier(patches)
    return _times(patches, kernel.astype(patches.dtype), patches.dtype), (patches, kernel)


def _product_backward(
    formulation: Formulation, saved: tuple, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    patches, kernel = saved
    rows, depth = patches.shape
    if not formulation.cpu:
        weights = _times(patches.T, cotangent, kernel.dtype)
    elif rows > depth:
        # (dy^T patches)^T behind a barrier: left to itself XLA contracts over the long first axis
        # in a form that takes two to three times as long.
        weights = lax.optimization_barrier(_times(cotangent.T, patches, kernel.dtype)).T
    else:
        # Here the transpose is what is long, and would end up inside the optimizer's fusion.
        weights = lax.optimization_barrier(_times(patches.T, cotangent, kernel.dtype))
    if formulation.scale != 1.0:
        weights = weights / formulation.scale
    return _times(cotangent, kernel.astype(patches.dtype).T, patches.dtype), weights


product.defvjp(_product_forward, _product_backward)


def _times(a: jax.Array, b: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """The matrix product in `dtype`; 16-bit factors are summed up in float32."""
    if a.dtype == dtype and a.dtype not in STORAGE.values():
        return a @ b  # at jax.default_matmul_precision
    return jnp.matmul(a, b, precision=lax.Precision.DEFAULT, preferred_element_type=dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def narrow(x: jax.Array, formulation: Formulation) -> jax.Array:
    """Rounds x to the formulation's 16 bits; its cotangent comes back without the scale.

    The barriers keep XLA, which may drop a rounding and its undoing, from storing 32 bits.
    """
    return x.astype(formulation.storage)


def _narrow_backward(formulation: Formulation, _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return (lax.optimization_barrier(cotangent).astype(jnp.float32) / formulation.scale,)


narrow.defvjp(lambda x, formulation: (narrow(x, formulation), None), _narrow_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def widen(y: jax.Array, formulation: Formulation) -> jax.Array:
    """Takes 16 bits back to float32; its cotangent is multiplied by the scale and rounded."""
    return lax.optimization_barrier(y).astype(jnp.float32)


def _widen_backward(formulation: Formulation, _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    return ((cotangent * formulation.scale).astype(formulation.storage),)


widen.defvjp(lambda y, formulation: (widen(y, formulation), None), _widen_backward)


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
