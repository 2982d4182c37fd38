"""Mutual information between binned codes and factors: what MIG and modularity have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import xlogy

from ibgan_jax.metrics.score import Interval, interval_around

# A resample's information is that of 10,000 images counted anew, which takes a millisecond.
RESAMPLES = 200

Statistic = Callable[[np.ndarray, np.ndarray], float]


def binned(codes: np.ndarray, bins: int) -> np.ndarray:
    """Codes [N, d] -> bin indices int [N, d]: equal widths from the least code to the greatest.

    A bin holds its left edge, the last one its right edge as well.
    """
    edges = [np.histogram_bin_edges(column, bins)[1:-1] for column in codes.T]
    return np.stack(
        [np.searchsorted(e, x, side="right") for e, x in zip(edges, codes.T, strict=True)], axis=-1
    )


def numbered(factors: np.ndarray) -> np.ndarray:
    """Factors [N, F] -> int [N, F]: each factor's values counted from 0 without gaps."""
    return np.stack([np.unique(f, return_inverse=True)[1] for f in factors.T], axis=-1)


def informations(bins: np.ndarray, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(I(z_j; v_k) [d, F], H(v_k) [F]) in nats, of the observed frequencies.

    Args:
      bins: int [N, d], from `binned`.
      factors: int [N, F], from `numbered`.
    """
    once = np.ones((1, len(bins)))
    return _informations([joint[0] for joint in _joints(bins, factors, once)])


def _joints(bins: np.ndarray, factors: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """For each factor the joint frequencies [R, d, bins, values] of codes and values.

    `weights` [R, N] says how often each row counts. The counts are a product with a matrix that is
    1 where an image falls into a cell, sums of whole numbers and thus exact in any order.
    """
    from scipy.sparse import csr_array  # a tenth of a second that every command would pay

    rows, dims = bins.shape
    width = int(bins.max()) + 1
    cells = bins + width * np.arange(dims)
    images = np.repeat(np.arange(rows), dims)
    columns, totals = np.ascontiguousarray(weights.T), weights.sum(axis=1)
    joints = []
    for factor in factors.T:
        values = int(factor.max()) + 1
        cell = (cells * values + factor[:, None]).ravel()
        falls = csr_array((np.ones(cell.size), (cell, images)), (dims * width * values, rows))
        joint = np.ascontiguousarray((falls @ columns).T).reshape(-1, dims, width, values)
        joints.append(joint / totals[:, None, None, None])
    return joints


def _informations(joints: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(I [d, F], H(v_k) [F]) of the joint frequencies [d, bins, values] of each factor."""
    matrix, entropies = [], []
    for joint in joints:
        of_value = _entropy(joint.sum(axis=1))
        together = _entropy(joint.reshape(len(joint), -1))
        matrix.append(np.maximum(_entropy(joint.sum(axis=2)) + of_value - together, 0.0))
        entropies.append(of_value[0])
    return np.stack(matrix, axis=-1), np.array(entropies)


def resampled(
    statistic: Statistic,
    value: float,
    bins: np.ndarray,
    factors: np.ndarray,
    rng: np.random.Generator,
) -> Interval:
    """Interval of `statistic(informations, entropies)` when the images [N] are drawn anew."""
    rows = len(bins)
    draws = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES).astype(np.float64)
    joints = _joints(bins, factors, draws)
    values = [statistic(*_informations(own)) for own in zip(*joints, strict=True)]
    return interval_around(value, np.array(values))


def gap(matrix: np.ndarray) -> np.ndarray:
    """The greatest entry of each column of [d, F] less the next greatest: [F].

    With one dimension the next greatest is 0.
    """
    padded = np.concatenate([matrix, np.zeros_like(matrix[:1])]) if len(matrix) == 1 else matrix
    second, first = np.sort(padded, axis=0)[-2:]
    return first - second


def mean_gap(matrix: np.ndarray, entropies: np.ndarray) -> float:
    """The mutual information gap (Chen et al. 2018, Eq. 6) of I [d, F] and H [F], both in nats.

    A factor without entropy has one value; it is left out of the mean.
    """
    varied = entropies > 1e-12
    if not varied.any():
        return 0.0
    return float((gap(matrix)[varied] / entropies[varied]).mean())


def _entropy(frequencies: np.ndarray) -> np.ndarray:
    """Entropies [...] in nats of frequencies [..., n]."""
    return -xlogy(frequencies, frequencies).sum(axis=-1)
