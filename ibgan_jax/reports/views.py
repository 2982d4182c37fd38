"""Pictures of what a model has learned, as arrays: samples and latent traversals."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from ibgan_jax.models.base import ByPlayer, Model

Generate = Callable[[ByPlayer, jax.Array], jax.Array]
ROW = 10  # images
TRAVERSAL = np.linspace(-2.0, 2.0, 10)


def samples(generate: Generate, variables: ByPlayer, model: Model, count: int = 64) -> np.ndarray:
    """Images [count, H, W, C] in [-1, 1] of the same codes ~ N(0, I) every time."""
    codes = np.random.default_rng(0).standard_normal((count, model.code_dim), np.float32)
    return np.asarray(generate(variables, codes))


def traversals(
    generate: Generate, variables: ByPlayer, nats: np.ndarray, values: np.ndarray = TRAVERSAL
) -> tuple[np.ndarray, np.ndarray]:
    """Latent traversals from the code 0, a row for each dimension, the most informative first.

    Args:
      nats: [d], what each dimension carries.
      values: [T], what the traversed dimension is set to; its prior is N(0, 1).

    Returns:
      images [d, T, H, W, C] in [-1, 1], and the dimension of each row [d].
    """
    order = np.argsort(-np.asarray(nats), kind="stable")
    dims, steps = len(order), len(values)
    codes = np.zeros((dims, steps, dims), np.float32)
    codes[np.arange(dims), :, order] = values
    images = np.asarray(generate(variables, codes.reshape(-1, dims)))
    return images.reshape(dims, steps, *images.shape[1:]), order


def reconstructions(
    generate: Generate, represent: Generate, variables: ByPlayer, images: np.ndarray
) -> np.ndarray:
    """Images [N, H, W, C] and what is generated from their representations, row below row.

    Returns images [2 N, H, W, C]: ten originals, their reconstructions, the next ten.
    """
    made = np.asarray(generate(variables, represent(variables, images)))
    pairs = np.stack([np.asarray(images), made]).reshape(2, -1, ROW, *made.shape[1:])
    return pairs.swapaxes(0, 1).reshape(-1, *made.shape[1:])
