"""Disentanglement, completeness and informativeness (Eastwood and Williams 2018, section 2)."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.special import xlogy

from ibgan_jax.metrics import logistic
from ibgan_jax.metrics.metric import Setup, metric
from ibgan_jax.metrics.mutual_information import numbered
from ibgan_jax.metrics.score import Interval, Result, scikit_learn

# Student's t that holds 95 % with as many parts, less one, degrees of freedom.
PARTS, T_VALUE = 5, 2.776


@dataclasses.dataclass(frozen=True)
class ImportanceProtocol:
    """Numbers of one protocol.

    Attributes:
      train: images that the classifiers learn from.
      test: images that they are judged by.
      classifier: `boosted_trees` or `l1_logistic`.
    """

    train: int
    test: int
    classifier: str


PROTOCOLS = {
    # Minutes on the factors of dSprites: a tree for each of 100 stages of each of 113 values.
    "disentanglement_lib": ImportanceProtocol(10_000, 5_000, "boosted_trees"),
    # Seconds; sees only what is linear in the codes.
    "linear": ImportanceProtocol(10_000, 5_000, "l1_logistic"),
}


@metric("dci", PROTOCOLS)
def dci(setup: Setup, settings: ImportanceProtocol) -> Result:
    """Disentanglement: whether each dimension matters to one factor only. 1 is ideal.

    Details: see `dci_of`.
    """
    if settings.classifier == "boosted_trees":
        scikit_learn("ensemble")  # before anything is encoded
    factors = setup.draw(settings.train + settings.test)
    codes = setup.encode(factors)
    return dci_of(codes, factors, settings.train, settings.classifier, setup.key[-1])


def dci_of(
    codes: np.ndarray,
    factors: np.ndarray,
    train: int,
    classifier: str = "boosted_trees",
    seed: int = 0,
) -> Result:
    """DCI of codes [N, d] and factors [N, F]; the first `train` rows train, the others judge.

    A classifier of each factor says how important each dimension is to it. Factors with one value
    are left out. The interval comes from the same classifiers on five disjoint parts of the
    training images, since refitting as often as a bootstrap would takes hours.

    Details: `importance` [d, F] (each factor's column sums to 1, or is 0), `completeness`,
    `informativeness` and `informativeness_train`: mean accuracy on images not trained on, and on
    those trained on.
    """
    labels = numbered(factors)
    varied = np.flatnonzero(np.ptp(labels[:train], axis=0) > 0)
    fit = {"boosted_trees": _boosted_trees, "l1_logistic": _l1_logistic}[classifier]
    columns, accuracies = fit(codes, labels[:, varied], train, seed)
    importance = np.zeros((codes.shape[1], factors.shape[1]))
    importance[:, varied] = columns[0]
    value = disentanglement(columns[0])
    details = {
        "importance": importance,
        "completeness": completeness(columns[0]),
        "informativeness": float(accuracies[1].mean()),
        "informativeness_train": float(accuracies[0].mean()),
    }
    return Result(value, _interval(value, [disentanglement(part) for part in columns[1:]]), details)


def disentanglement(importance: np.ndarray) -> float:
    """How much each dimension matters to one factor only, of importances [d, F] (section 2).

    1 less the entropy of a dimension's importances in units of log F, averaged with the
    dimensions' shares of all importance. Dimensions without importance count as spread evenly; one
    factor alone leaves nothing to be entangled with: 1.
    """
    spread = importance + 1e-11
    shares = spread / spread.sum(axis=1, keepdims=True)
    entropy = -xlogy(shares, shares).sum(axis=1) / max(np.log(shares.shape[1]), 1e-300)
    total = importance.sum()
    weights = importance.sum(axis=1) / total if total else np.full(len(shares), 1 / len(shares))
    return float(weights @ (1 - entropy))


def completeness(importance: np.ndarray) -> float:
    """How much each factor is in one dimension only: `disentanglement` of the transpose."""
    return disentanglement(importance.T)


def _interval(value: float, parts: list[float]) -> Interval:
    """t interval: parts of a fifth of the images spread sqrt(5) times as widely as the whole."""
    half = T_VALUE * float(np.std(parts, ddof=1)) / PARTS**0.5
    return max(0.0, value - half), min(1.0, value + half)


# Importances [1 + PARTS, d, F] from all training images, then from each part of them; accuracies
# [2, F] of the former, in training and on other images.
Fitted = tuple[np.ndarray, np.ndarray]


def _boosted_trees(codes: np.ndarray, labels: np.ndarray, train: int, seed: int) -> Fitted:
    """scikit-learn's default gradient boosting, as disentanglement_lib uses it."""
    ensemble = scikit_learn("ensemble")
    whole = slice(None)

    def run(task: tuple[slice, int]) -> tuple[np.ndarray, float, float]:
        span, k = task
        x, y = codes[:train][span], labels[:train][span, k]
        if not np.ptp(y):  # in this part one value: no dimension matters to it
            return np.zeros(x.shape[1]), 0.0, 0.0
        model = ensemble.GradientBoostingClassifier(random_state=seed).fit(x, y)
        # Of the models of parts only the importances are wanted.
        right = model.predict(codes) == labels[:, k] if span == whole else np.zeros(len(codes))
        return np.abs(model.feature_importances_), right[:train].mean(), right[train:].mean()

    spans = [whole, *(slice(i, None, PARTS) for i in range(PARTS))]
    factors = range(labels.shape[1])
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(run, [(span, k) for span in spans for k in factors]))
    columns = np.stack([importance for importance, _, _ in found])
    accuracies = np.array([accuracy for _, *accuracy in found[: len(factors)]]).T
    return columns.reshape(len(spans), len(factors), -1).swapaxes(1, 2), accuracies


def _l1_logistic(codes: np.ndarray, labels: np.ndarray, train: int, seed: int) -> Fitted:
    """Sums of |weights| over a factor's values, scaled to 1; nothing is random, `seed` unused."""
    x = logistic.inputs(codes, train)
    even = train - train % PARTS
    # Every PARTS-th image, so that the parts are [PARTS, n, ...].
    fifths = [a[:even].reshape(-1, PARTS, a.shape[-1]).swapaxes(0, 1) for a in (x, labels)]
    whole = logistic.fit(x[None, :train], labels[None, :train])
    sums = [np.abs(w[:, :, :-1]).sum(axis=-1) for w in (whole, logistic.fit(*fifths))]
    columns = np.concatenate(sums).swapaxes(1, 2)
    right = logistic.predict(whole[0], x) == labels
    accuracies = np.stack([right[:train].mean(axis=0), right[train:].mean(axis=0)])
    return columns / np.maximum(columns.sum(axis=1, keepdims=True), 1e-300), accuracies
