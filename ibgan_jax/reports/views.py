"""Pictures of what a model has learned, as arrays: samples and latent traversals."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np

from ibgan_jax.models.base import ByPlayer, Model

Generate = Callable[[ByPlayer, jax.Array], jax.Array]
ROW = 10  # images
TRAVERSAL = np.linspace(-2.0, 2.0, 10)
STARTS = 3  # real images whose codes are traversed


def samples(generate: Generate, variables: ByPlayer, model: Model, count: int = 64) -> np.ndarray:
    """Images [count, H, W, C] in [-1, 1] of the same codes ~ N(0, I) every time."""
    codes = np.random.default_rng(0).standard_normal((count, model.code_dim), np.float32)
    return np.asarray(generate(variables, codes))


def unlike(images: np.ndarray, count: int) -> np.ndarray:
    """Picks `count` of the images [N, H, W, C] that differ most from one another.

    The first is the one farthest from their mean. Each next one is the one whose nearest picked
    image is the farthest away, by the Euclidean distance of their pixels.
    """
    pixels = np.asarray(images, np.float32).reshape(len(images), -1)
    distance = np.linalg.norm(pixels - pixels.mean(axis=0), axis=1)
    picked = [int(distance.argmax())]
    distance = np.full(len(images), np.inf)
    while len(picked) < min(count, len(images)):
        distance = np.minimum(distance, np.linalg.norm(pixels - pixels[picked[-1]], axis=1))
        picked.append(int(distance.argmax()))
    return np.asarray(images)[picked]


def traversals(
    generate: Generate,
    represent: Generate,
    variables: ByPlayer,
    nats: np.ndarray,
    starts: np.ndarray,
    values: np.ndarray = TRAVERSAL,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes latent traversals that start from the codes of real images.

    Each row takes the code of one real image and sets one dimension to `values`. The rows are in
    the order of what their dimensions carry, the most informative first.

    Args:
      nats: [d], what each dimension carries.
      starts: real images [S, H, W, C] in [-1, 1].
      values: [T], what the traversed dimension is set to; its prior is N(0, 1).

    Returns:
      images [S, d, T, H, W, C] in [-1, 1], and the dimension of each row [d].
    """
    order = np.argsort(-np.asarray(nats), kind="stable")
    count, dims, steps = len(starts), len(order), len(values)
    codes = np.asarray(represent(variables, starts), np.float32)
    codes = np.broadcast_to(codes[:, None, None], (count, dims, steps, dims)).copy()
    codes[:, np.arange(dims), :, order] = values
    images = np.asarray(generate(variables, codes.reshape(-1, dims)))
    return images.reshape(count, dims, steps, *images.shape[1:]), order


def reconstructions(
    generate: Generate, represent: Generate, variables: ByPlayer, images: np.ndarray
) -> np.ndarray:
    """Images [N, H, W, C] and what is generated from their representations, row below row.

    Returns images [2 N, H, W, C]: ten originals, their reconstructions, the next ten.
    """
    made = np.asarray(generate(variables, represent(variables, images)))
    pairs = np.stack([np.asarray(images), made]).reshape(2, -1, ROW, *made.shape[1:])
    return pairs.swapaxes(0, 1).reshape(-1, *made.shape[1:])
