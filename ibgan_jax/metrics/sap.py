"""The separated attribute predictability score (Kumar et al. 2018, section 3)."""

from __future__ import annotations

import dataclasses
import itertools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ibgan_jax.metrics.metric import Setup, metric
from ibgan_jax.metrics.mutual_information import gap
from ibgan_jax.metrics.score import Result, bootstrap, scikit_learn


@dataclasses.dataclass(frozen=True)
class SvmProtocol:
    """Numbers of one protocol.

    Attributes:
      train: images that the classifiers learn from.
      test: images that they are judged by.
      penalty: the linear SVM's C.
    """

    train: int
    test: int
    penalty: float


# disentanglement_lib's, for discrete factors.
PROTOCOLS = {"disentanglement_lib": SvmProtocol(10_000, 5_000, 0.01)}


@metric("sap", PROTOCOLS)
def sap(setup: Setup, settings: SvmProtocol) -> Result:
    """How much better the best dimension predicts a factor than the next best: the gap's mean.

    Details: `accuracies` [d, F], of predicting a factor from one dimension.
    """
    scikit_learn("svm")  # before anything is encoded
    factors = setup.draw(settings.train + settings.test)
    codes = setup.encode(factors)
    return sap_of(codes, factors, settings.train, settings.penalty, setup.rng)


def sap_of(
    codes: np.ndarray,
    factors: np.ndarray,
    train: int,
    penalty: float = 0.01,
    rng: np.random.Generator | None = None,
) -> Result:
    """SAP of codes [N, d] and factors [N, F]; the first `train` rows train, the others judge.

    A linear SVM with balanced classes predicts each factor from each dimension. A factor with one
    value is left out of the average, its column of `accuracies` is 0.
    """
    svm = scikit_learn("svm")

    def right(place: tuple[int, int]) -> np.ndarray:
        column, factor = codes[:, place[0], None], factors[:, place[1]]
        if len(np.unique(factor[:train])) < 2:
            return np.zeros(len(codes) - train, bool)
        # The primal problem has the same solution as disentanglement_lib's dual one, found
        # without random numbers.
        model = svm.LinearSVC(C=penalty, class_weight="balanced", dual=False)
        model.fit(column[:train], factor[:train])
        return model.predict(column[train:]) == factor[train:]

    dims, count = codes.shape[1], factors.shape[1]
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(right, itertools.product(range(dims), range(count))))
    terms = np.stack(found, axis=-1).reshape(-1, dims, count)
    varied = np.array([len(np.unique(f)) > 1 for f in factors[:train].T])
    accuracies = terms.mean(axis=0)

    def mean_gap(matrix: np.ndarray) -> float:
        return float(gap(matrix)[varied].mean()) if varied.any() else 0.0

    interval = bootstrap(terms, mean_gap, rng or np.random.default_rng(0))
    return Result(mean_gap(accuracies), interval, {"accuracies": accuracies})
