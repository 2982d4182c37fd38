"""Batch normalisation and the ReLU behind it, with as few passes over the data as they need."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

EPSILON = 1e-5


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise(
    x: jax.Array, scale: jax.Array, bias: jax.Array, slope: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises each channel over the batch, then applies a leaky ReLU.

    Ioffe and Szegedy (2015), Algorithm 1. The backward pass keeps only x and the channels' moments:
    left to itself JAX also stores the centred values, their product with the scale, and the signs.
    Nothing flows back through the moments that are returned.

    Args:
      x: [..., C].
      scale, bias: gamma and beta [C].
      slope: of the leaky ReLU below 0.

    Returns:
      The outputs [..., C], and the batch's mean and biased variance [C].
    """
    return _forward(x, scale, bias, slope)[0]


def _sums(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sums [C] of two arrays [B, ..., C], taken in one pass.

    First within each example, which leaves a GPU enough blocks to work on side by side.
    """

    def total(arrays: tuple[jax.Array, ...], axes: tuple[int, ...]) -> tuple[jax.Array, ...]:
        zeros = tuple(jnp.zeros((), array.dtype) for array in arrays)
        return jax.lax.reduce(arrays, zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), axes)

    within = tuple(range(1, x.ndim - 1))
    return total(total((x, y), within) if within else (x, y), (0,))


def _forward(x: jax.Array, scale: jax.Array, bias: jax.Array, slope: float) -> tuple:
    count = x.size // x.shape[-1]
    mean, mean_square = (total / count for total in _sums(x, jnp.square(x)))
    variance = jnp.maximum(mean_square - jnp.square(mean), 0.0)
    deviation = jax.lax.rsqrt(variance + EPSILON)
    y = activate((x - mean) * (deviation * scale) + bias, slope)
    return (y, mean, variance), (x, scale, bias, mean, deviation)


def _backward(slope: float, saved: tuple, cotangents: tuple) -> tuple:
    x, scale, bias, mean, deviation = saved
    standard = (x - mean) * deviation
    g = jnp.where(standard * scale + bias >= 0, cotangents[0], slope * cotangents[0])
    of_bias, of_scale = _sums(g, g * standard)
    count = x.size // x.shape[-1]
    of_x = (deviation * scale) * (g - (of_bias + standard * of_scale) / count)
    return of_x, of_scale, of_bias


normalise.defvjp(_forward, _backward)


def activate(x: jax.Array, slope: float) -> jax.Array:
    """The leaky ReLU with a slope below 0; 0 is the ReLU."""
    return jnp.where(x >= 0, x, slope * x)


class BatchNorm(nn.Module):
    """`nn.BatchNorm(momentum=0.9)` over all but the last axis, followed by a leaky ReLU.

    Parameters and running statistics have nn.BatchNorm's names. Running variances are biased, as
    Flax's are.

    Attributes:
      slope: of the leaky ReLU below 0.
      momentum: how much of a running statistic stays at each step.
    """

    slope: float = 0.0
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        variance = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        if not train:
            factor = jax.lax.rsqrt(variance.value + EPSILON) * scale
            return activate((x - mean.value) * factor + bias, self.slope)
        y, *moments = normalise(x, scale, bias, self.slope)
        if not self.is_initializing():
            for running, moment in zip((mean, variance), moments, strict=True):
                running.value = self.momentum * running.value + (1 - self.momentum) * moment
        return y
