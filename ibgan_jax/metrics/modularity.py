"""Modularity (Ridgeway and Mozer 2018, section 3): does each dimension tell of one factor only?"""

from __future__ import annotations

import numpy as np

from ibgan_jax.metrics import mutual_information as mi
from ibgan_jax.metrics.metric import Setup, metric
from ibgan_jax.metrics.mig import BinProtocol
from ibgan_jax.metrics.score import Result

PROTOCOLS = {"disentanglement_lib": BinProtocol(10_000, 20)}


@metric("modularity", PROTOCOLS)
def modularity(setup: Setup, settings: BinProtocol) -> Result:
    """How little each dimension tells of any factor but its own: 1 is ideal.

    Details: `mutual_information` [d, F] in nats, `by_dimension` [d].
    """
    factors = setup.draw(settings.images)
    return modularity_of(setup.encode(factors), factors, settings.bins, setup.rng)


def modularity_of(
    codes: np.ndarray,
    factors: np.ndarray,
    bins: int = 20,
    rng: np.random.Generator | None = None,
) -> Result:
    """Modularity of codes [N, d] and factors [N, F]; information as in `mig_of`."""
    labels, cells = mi.numbered(factors), mi.binned(codes, bins)
    matrix, entropies = mi.informations(cells, labels)
    by_dimension = modularity_by_dimension(matrix, entropies)
    value = float(by_dimension.mean())
    interval = mi.resampled(
        lambda *information: float(modularity_by_dimension(*information).mean()),
        value,
        cells,
        labels,
        rng or np.random.default_rng(0),
    )
    return Result(value, interval, {"mutual_information": matrix, "by_dimension": by_dimension})


def modularity_by_dimension(matrix: np.ndarray, entropies: np.ndarray) -> np.ndarray:
    """1 less the squared information on other factors, as a share of the most there could be: [d].

    That is, of (F - 1) times the square of the greatest. A dimension without information scores 0,
    as in disentanglement_lib. Factors without entropy (one value) do not count as others; if one
    factor is all there is, every informative dimension scores 1.

    Args:
      matrix: I(z_j; v_k) [d, F].
      entropies: H(v_k) [F], same unit.
    """
    squares = np.square(matrix[:, entropies > 1e-12])
    if not squares.shape[1]:
        return np.zeros(len(matrix))
    own = squares.max(axis=1)
    most = own * max(1, squares.shape[1] - 1)
    # Rounding leaves a dimension that does not vary with information of 1e-16.
    tells = own > 1e-24
    return np.where(tells, 1 - (squares.sum(axis=1) - own) / np.where(tells, most, 1.0), 0.0)
