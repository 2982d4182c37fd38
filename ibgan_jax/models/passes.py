"""Passes of one network in training mode, with its batch statistics and its derivatives."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


def train(module: nn.Module, params: dict, batch_stats: dict, x: jax.Array) -> tuple:
    """(outputs, new batch_stats) of a module in training mode."""
    variables = {"params": params, "batch_stats": batch_stats}
    outputs, changed = module.apply(variables, x, True, mutable=["batch_stats"])
    return outputs, changed.get("batch_stats", {})


def vjp(module: nn.Module, params: dict, batch_stats: dict, x: jax.Array) -> tuple:
    """(outputs, pull-back to (params, x), new batch_stats) of a module in training mode."""
    return jax.vjp(lambda p, x: train(module, p, batch_stats, x), params, x, has_aux=True)


def mean_and_gradient(
    loss: Callable[[jax.Array], jax.Array], x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(mean of the examples' losses, its gradient with respect to x)."""
    return jax.value_and_grad(lambda x: jnp.mean(loss(x)))(x)
