"""The FactorVAE score (Kim and Mnih 2018, section 4), in named protocols that are never mixed."""

from __future__ import annotations

import dataclasses

import numpy as np

from ibgan_jax.metrics.encoding import draw_fixed
from ibgan_jax.metrics.metric import Setup, metric
from ibgan_jax.metrics.score import Result, Score

# A tenth of dSprites is 73,728 images; of its 512 colours it would be 38 million, and the variance
# no better known for any purpose.
SHARE_AT_MOST = 100_000


@dataclasses.dataclass(frozen=True)
class VoteProtocol:
    """The numbers of one protocol.

    Attributes:
      votes: how many (dimension, factor) votes make the classifier.
      samples: images behind a vote, alike in one factor.
      normaliser_samples: images that estimate each dimension's variance over the data set; a
        float is a share of the data set (SHARE_AT_MOST images), drawn without repetition.
      pruned_below: a dimension whose variance is smaller never gets a vote.
      evaluation_votes: further votes that the classifier is judged by; 0 is the same votes again.
      in_turn: each vote is about the next factor, instead of one drawn at random.
    """

    votes: int
    samples: int
    normaliser_samples: int | float
    pruned_below: float
    evaluation_votes: int = 0
    in_turn: bool = False


PROTOCOLS = {
    # ID-GAN and IB-GAN: random factors, unbiased variances, accuracy on the votes themselves. They
    # take the normaliser from the whole data set; 10,000 images estimate the same variance within
    # 2 %.
    "id_gan": VoteProtocol(800, 100, 10_000, 0.05),
    # Locatello et al. 2019 prune by the standard deviation: 0.05 is a variance of 0.0025.
    "disentanglement_lib": VoteProtocol(10_000, 64, 10_000, 0.05**2, evaluation_votes=5_000),
    # Lin et al. 2020 compare standard deviations, which picks the same dimension.
    "infogan_cr": VoteProtocol(500, 100, 0.1, 0.0, in_turn=True),
}


@dataclasses.dataclass(frozen=True)
class FactorVaeScore(Score):
    """A Score with its votes at hand."""

    @property
    def votes(self) -> np.ndarray:
        """Int [d, F]: how often each dimension was chosen for each factor."""
        return self.details["votes"]

    @property
    def variances(self) -> np.ndarray:
        """[d]: each dimension's variance over the data set."""
        return self.details["variances"]

    @property
    def active(self) -> tuple[int, ...]:
        """The dimensions that could be chosen."""
        return self.details["active"]


@metric("factor_vae", PROTOCOLS, FactorVaeScore)
def factor_vae_score(setup: Setup, settings: VoteProtocol) -> Result:
    """How well single code dimensions single out single factors: 1 is ideal.

    For each vote one factor is fixed and the others are drawn; the dimension with the least
    variance, normalised by its variance over the data set, votes for that factor. The score is the
    accuracy of the classifier that gives each dimension the factor it was chosen for most often.
    Factors with one value are never the fixed one, and a dimension that does not vary at all is
    never chosen, whatever the protocol prunes.

    Details: see FactorVaeScore.
    """
    encode, rng = setup.encode, setup.rng
    variances = encode(_normaliser_factors(setup, settings)).var(axis=0, ddof=1)

    def local_variances(votes: int) -> tuple[np.ndarray, np.ndarray]:
        fixed, factors = draw_votes(rng, encode.sizes, votes, settings.samples, settings.in_turn)
        return encode.reduced(factors, lambda codes: codes.var(axis=1, ddof=1)), fixed

    local, fixed = local_variances(settings.votes)
    judged = local_variances(settings.evaluation_votes) if settings.evaluation_votes else None
    return factor_vae_of(
        local, fixed, variances, len(encode.sizes), settings.pruned_below, judged, rng
    )


def factor_vae_of(
    local: np.ndarray,
    fixed: np.ndarray,
    variances: np.ndarray,
    factors: int,
    pruned_below: float = 0.05,
    judged: tuple[np.ndarray, np.ndarray] | None = None,
    rng: np.random.Generator | None = None,
) -> Result:
    """The score of votes that have been taken.

    Args:
      local: each dimension's variance [votes, d] among a vote's images.
      fixed: int [votes], the factor that these images share.
      variances: [d], over the data set.
      factors: how many factors there are, F.
      pruned_below: dimensions of smaller variance are never chosen.
      judged: (local, fixed) of the votes that the classifier is judged by; None is the same ones.
      rng: draws the resamples of the interval.
    """
    rng = rng or np.random.default_rng(0)
    dims = len(variances)
    active = (variances >= pruned_below) & (variances > 0)
    details = {
        "votes": np.zeros((dims, factors), int),
        "variances": variances,
        "active": tuple(np.flatnonzero(active).tolist()),
    }
    if not active.any():
        return Result(0.0, (0.0, 0.0), details)

    chosen = least_varying(local, variances, active)
    details["votes"], right = majority_vote(chosen, fixed, dims, factors)
    if judged is not None:
        details["train_accuracy"] = float(right.mean())
        classifier = details["votes"].argmax(axis=1)
        right = classifier[least_varying(judged[0], variances, active)] == judged[1]
    # The classifier stays that of all votes: made anew from each resample it would flatter them.
    # Fifty resamples at a time: 1,000 of 5,000 votes at once would take 40 MB.
    count = len(right)
    means = [right[rng.integers(0, count, (50, count))].mean(axis=1) for _ in range(20)]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Result(float(right.mean()), (float(low), float(high)), details)


def least_varying(local: np.ndarray, variances: np.ndarray, active: np.ndarray) -> np.ndarray:
    """The dimension int [votes] that each vote is cast by.

    Args:
      local: each dimension's variance [votes, d] among a vote's images.
      variances: [d], over all images; above 0 where active.
      active: bool [d], the dimensions that may be chosen; one at least.
    """
    return np.where(active, local / np.where(active, variances, 1.0), np.inf).argmin(axis=1)


def majority_vote(
    chosen: np.ndarray, fixed: np.ndarray, dims: int, factors: int
) -> tuple[np.ndarray, np.ndarray]:
    """The votes int [dims, factors], and which of them their own majority gets right.

    Args:
      chosen: int [V], the dimension that cast each vote.
      fixed: int [V], what was held.

    Returns:
      (how often each dimension was chosen for each factor, bool [V]: whether `fixed` is the factor
      that the chosen dimension was chosen for most often; of equals it is the first).
    """
    votes = np.zeros((dims, factors), int)
    np.add.at(votes, (chosen, fixed), 1)
    return votes, votes.argmax(axis=1)[chosen] == fixed


def draw_votes(
    rng: np.random.Generator, sizes: np.ndarray, votes: int, samples: int, in_turn: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """(fixed factor [votes], factor indices [votes, samples, F] alike in the fixed factor)."""
    fixed = draw_fixed(rng, np.flatnonzero(sizes > 1), votes, in_turn)
    factors = rng.integers(0, sizes, (votes, samples, len(sizes)))
    rows = np.arange(votes)
    factors[rows, :, fixed] = factors[rows, :1, fixed]
    return fixed, factors


def _normaliser_factors(setup: Setup, settings: VoteProtocol) -> np.ndarray:
    """Factor indices [N, F] of the images that tell each dimension's variance."""
    if isinstance(settings.normaliser_samples, int):
        return setup.draw(settings.normaliser_samples)
    size = setup.encode.combinations
    count = max(2, min(round(settings.normaliser_samples * size), SHARE_AT_MOST))
    indices = setup.rng.choice(size, count, replace=False, shuffle=False)
    return np.stack(np.unravel_index(indices, tuple(setup.encode.sizes)), axis=-1)
