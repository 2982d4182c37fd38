"""Pictures of what a model has learned, as arrays: samples and latent traversals."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from ibgan_jax.models.base import ByPlayer, Model

Generate = Callable[[ByPlayer, jax.Array], jax.Array]
TRAVERSAL = np.linspace(-2.0, 2.0, 10)


def samples(generate: Generate, variables: ByPlayer, model: Model, count: int = 64) -> np.ndarray:
    """Images [count, H, W, C] in [-1, 1] of the same codes r ~ N(0, I) every time."""
    codes = np.random.default_rng(0).standard_normal((count, model.code_dim), np.float32)
    return np.asarray(generate(variables, codes))


def traversals(
    generate: Generate, variables: ByPlayer, kl: np.ndarray, values: np.ndarray = TRAVERSAL
) -> tuple[np.ndarray, np.ndarray]:
    """Latent traversals from r = 0, a row for each dimension, the largest KL first.

    Args:
      kl: [d] nats, KL(e(r_i|z) || m(r_i)).
      values: [T], what the traversed dimension is set to; m(r_i) = N(0, 1).

    Returns:
      images [d, T, H, W, C] in [-1, 1], and the dimension of each row [d].
    """
    order = np.argsort(-np.asarray(kl), kind="stable")
    dims, steps = len(order), len(values)
    codes = np.zeros((dims, steps, dims), np.float32)
    codes[np.arange(dims), :, order] = values
    images = np.asarray(generate(variables, codes.reshape(-1, dims)))
    return images.reshape(dims, steps, *images.shape[1:]), order
