"""The beta-VAE score (Higgins et al. 2017, section 3)."""

from __future__ import annotations

import dataclasses

import numpy as np

from ibgan_jax.metrics.encoding import draw_fixed
from ibgan_jax.metrics.metric import Setup, metric
from ibgan_jax.metrics.score import Result, bootstrap, scikit_learn


@dataclasses.dataclass(frozen=True)
class PairProtocol:
    """Numbers of one protocol.

    Attributes:
      train: mean differences that the classifier learns from.
      test: mean differences that it is judged by.
      pairs: of images behind each mean difference.
    """

    train: int
    test: int
    pairs: int


PROTOCOLS = {"disentanglement_lib": PairProtocol(10_000, 5_000, 64)}


@metric("beta_vae", PROTOCOLS)
def beta_vae_score(setup: Setup, settings: PairProtocol) -> Result:
    """How well the factor that pairs of images share is told from how their codes differ.

    For each vote one factor is chosen; the images of a pair are alike in it and drawn otherwise.
    Logistic regression predicts the factor from the mean absolute difference of the codes; the
    score is its accuracy on votes that it was not trained on. 1 is ideal, but rotated codes reach
    it too. Factors with one value are never chosen.

    Details: `train_accuracy`.
    """
    scikit_learn("linear_model")  # before anything is encoded
    encode, votes = setup.encode, settings.train + settings.test
    fixed, factors = draw_pairs(setup.rng, encode.sizes, votes, settings.pairs)
    differences = encode.reduced(factors, mean_differences)
    return beta_vae_of(differences, fixed, settings.train, setup.rng)


def draw_pairs(
    rng: np.random.Generator, sizes: np.ndarray, votes: int, pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """(chosen factor [votes], factor indices [votes, 2, pairs, F]), each pair alike in the factor.

    Pairs of one vote differ in the chosen factor, unlike the images of a FactorVAE vote.
    """
    fixed = draw_fixed(rng, np.flatnonzero(sizes > 1), votes)
    # Narrow integers: two million images' factors lie in memory at once.
    factors = rng.integers(0, sizes, (votes, 2, pairs, len(sizes))).astype(np.int32)
    rows = np.arange(votes)
    factors[rows, 1, :, fixed] = factors[rows, 0, :, fixed]
    return fixed, factors


def mean_differences(codes: np.ndarray) -> np.ndarray:
    """Codes [votes, 2, pairs, d] -> mean absolute differences [votes, d]."""
    return np.abs(codes[:, 0] - codes[:, 1]).mean(axis=1)


def beta_vae_of(
    differences: np.ndarray,
    fixed: np.ndarray,
    train: int,
    rng: np.random.Generator | None = None,
) -> Result:
    """The score of mean differences [votes, d] with the factor int [votes] that pairs share.

    The first `train` votes train scikit-learn's default logistic regression, the others judge it.
    """
    linear_model = scikit_learn("linear_model")
    if len(np.unique(fixed[:train])) < 2:  # one factor: nothing to confuse it with
        return Result(1.0, (1.0, 1.0), {"train_accuracy": 1.0})
    model = linear_model.LogisticRegression(max_iter=1000)
    model.fit(differences[:train], fixed[:train])
    right = model.predict(differences) == fixed
    judged = right[train:]
    interval = bootstrap(judged, float, rng or np.random.default_rng(0))
    return Result(float(judged.mean()), interval, {"train_accuracy": float(right[:train].mean())})
