"""Softmax regression with an L1 penalty: all factors at once, on the device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

PENALTY, STEPS = 0.002, 300


def inputs(codes: np.ndarray, train: int) -> np.ndarray:
    """Codes [N, d] standardised by the first `train` rows, and a column of ones: [N, d + 1].

    A dimension that does not vary among those rows becomes 0.
    """
    mean, deviation = codes[:train].mean(axis=0), codes[:train].std(axis=0)
    scale = np.where(deviation > 1e-12, deviation, np.inf)
    return np.concatenate([(codes - mean) / scale, np.ones((len(codes), 1))], axis=-1)


def fit(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights float64 [P, F, d + 1, V] of one regression for each of P parts and F factors.

    Minimises the mean cross-entropy and PENALTY times the sum of |weights|, the bias apart. With
    10,000 images the covariance of a dimension and a value that have nothing in common is of the
    order of the penalty. STEPS of accelerated proximal gradient descent (Beck and Teboulle 2009)
    from 0; nothing in it is random.

    Args:
      x: [P, N, d + 1], from `inputs`.
      labels: int [P, N, F], each factor's values counted from 0; V is the most values there are.
    """
    values = labels.max(axis=(0, 1)) + 1
    exists = np.arange(values.max()) < values[:, None]
    # The curvature of the cross-entropy is at most half that of the inputs.
    curvature = max(np.linalg.norm(part.T @ part / len(part), 2) for part in x) / 2
    x, curvature = np.asarray(x, np.float32), np.float32(curvature)
    weights = np.array(_fit(x, np.moveaxis(labels, -1, 1), exists, curvature), np.float64)
    # A value that a factor does not have is never predicted.
    weights[:, :, -1] = np.where(exists, weights[:, :, -1], -np.inf)
    return weights


def predict(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Weights [F, d + 1, V], inputs [N, d + 1] -> values int [N, F]."""
    return np.moveaxis((x @ weights).argmax(axis=-1), 0, -1)


@jax.jit
def _fit(x: jax.Array, labels: jax.Array, exists: jax.Array, curvature: jax.Array) -> jax.Array:
    """x [P, N, c], labels int [P, F, N], exists bool [F, V] -> weights [P, F, c, V]."""
    target = jax.nn.one_hot(labels, exists.shape[-1], dtype=x.dtype)
    absent = jnp.where(exists, 0.0, -1e9)[:, None, :]
    count, columns = x.shape[1:]
    threshold = (PENALTY / curvature * (jnp.arange(columns) < columns - 1))[:, None]

    def step(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        weights, ahead, momentum = state
        logits = jnp.einsum("pnc,pfcv->pfnv", x, ahead) + absent
        residual = jax.nn.softmax(logits) - target
        moved = ahead - jnp.einsum("pnc,pfnv->pfcv", x, residual) / count / curvature
        new = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - threshold, 0.0)
        following = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return new, new + (momentum - 1) / following * (new - weights), following

    start = jnp.zeros((*target.shape[:2], columns, target.shape[-1]), x.dtype)
    return jax.lax.fori_loop(0, STEPS, step, (start, start, jnp.ones((), x.dtype)))[0]
