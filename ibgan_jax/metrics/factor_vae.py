"""The FactorVAE score (Kim and Mnih 2018, section 4), in named protocols that are never mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from ibgan_jax.errors import UserError

CodesOf = Callable[[jax.Array], jax.Array]


class FactorDataset(Protocol):
    """What a metric needs of a dataset: its ground-truth factors and the images they make."""

    name: str
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]

    def images(self, factors: np.ndarray) -> jax.Array:
        """Factor indices [B, F] -> images [B, H, W, C] in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class VoteProtocol:
    """The numbers of one protocol.

    Attributes:
      votes: how many (dimension, factor) votes.
      samples: images behind a vote, alike in one factor.
      normaliser_samples: images that estimate each dimension's variance over the data set.
      pruned_below: a dimension whose variance is smaller never gets a vote.
    """

    votes: int
    samples: int
    normaliser_samples: int
    pruned_below: float


# ID-GAN and IB-GAN: random factors, unbiased variances, accuracy on the votes themselves. They take
# the normaliser from the whole data set; 10,000 images estimate the same variance within 2 %.
PROTOCOLS = {"id_gan": VoteProtocol(800, 100, 10_000, 0.05)}


@dataclasses.dataclass(frozen=True)
class Score:
    """A score with everything that is needed to trust or repeat it.

    Attributes:
      value: in [0, 1].
      interval: 95 % bootstrap interval over the votes.
      votes: int [d, F], how often each dimension was chosen for each factor.
      variances: [d], each dimension's variance over the data set.
      active: the dimensions that could be chosen.
    """

    value: float
    interval: tuple[float, float]
    metric: str
    protocol: str
    settings: dict[str, Any]
    dataset: str
    factor_names: tuple[str, ...]
    key: list[int]
    votes: np.ndarray
    variances: np.ndarray
    active: tuple[int, ...]

    def __float__(self) -> float:
        return self.value

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for scores.json."""
        return {
            field.name: value.tolist() if isinstance(value, np.ndarray) else value
            for field in dataclasses.fields(self)
            for value in [getattr(self, field.name)]
        }


def factor_vae_score(
    codes_of: CodesOf,
    dataset: FactorDataset,
    key: jax.Array,
    protocol: str = "id_gan",
    batch_size: int = 250,
) -> Score:
    """How well single code dimensions single out single factors: 1 is ideal.

    For each vote one factor is fixed and the others are drawn; the dimension with the least
    variance, normalised by its variance over the data set, votes for that factor. The score is the
    accuracy of the classifier that gives each dimension the factor it was chosen for most often.

    Args:
      codes_of: images [B, H, W, C] in [-1, 1] -> codes [B, d].
      dataset: has `factor_names`, `factor_sizes`, `images(factors)`.
      key: a JAX random key; it alone decides the votes.
      protocol: one of PROTOCOLS.
      batch_size: images encoded at a time.

    Raises:
      UserError: unknown protocol, or the codes are not finite [B, d].
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}; choose one of: {', '.join(PROTOCOLS)}")
    settings = PROTOCOLS[protocol]
    words = np.asarray(jax.random.key_data(key)).ravel()
    rng = np.random.default_rng(words)
    sizes = np.asarray(dataset.factor_sizes)

    def encode(factors: np.ndarray) -> np.ndarray:
        return _encode(codes_of, dataset, factors, batch_size)

    everywhere = encode(rng.integers(0, sizes, (settings.normaliser_samples, len(sizes))))
    variances = everywhere.var(axis=0, ddof=1)
    active = variances >= settings.pruned_below

    fixed, factors = draw_votes(rng, sizes, settings.votes, settings.samples)
    codes = encode(factors.reshape(-1, len(sizes)))
    local = codes.reshape(settings.votes, settings.samples, -1).var(axis=1, ddof=1)
    return Score(
        **_tally(local, variances, active, fixed, len(sizes), rng),
        metric="factor_vae",
        protocol=protocol,
        settings=dataclasses.asdict(settings),
        dataset=dataset.name,
        factor_names=tuple(dataset.factor_names),
        key=words.tolist(),
        variances=variances,
        active=tuple(np.flatnonzero(active).tolist()),
    )


def draw_votes(
    rng: np.random.Generator, sizes: np.ndarray, votes: int, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """(fixed factor [votes], factor indices [votes, samples, F] alike in the fixed factor)."""
    fixed = rng.integers(0, len(sizes), votes)
    factors = rng.integers(0, sizes, (votes, samples, len(sizes)))
    rows = np.arange(votes)
    factors[rows, :, fixed] = factors[rows, :1, fixed]
    return fixed, factors


def _encode(
    codes_of: CodesOf, dataset: FactorDataset, factors: np.ndarray, batch_size: int
) -> np.ndarray:
    """Codes float64 [N, d]; every batch has the same shape, so that one program serves all."""
    pad = -len(factors) % batch_size
    padded = np.concatenate([factors, np.repeat(factors[:1], pad, axis=0)])
    batches = padded.reshape(-1, batch_size, factors.shape[-1])
    # Nothing is fetched before all is dispatched: the device never waits for the host.
    parts = [codes_of(dataset.images(batch)) for batch in batches]
    codes = np.concatenate([np.asarray(part, np.float64) for part in parts])[: len(factors)]
    if codes.ndim != 2 or not np.isfinite(codes).all():
        raise UserError(f"codes must be finite numbers [B, d]; got shape {codes.shape}")
    return codes


def _tally(
    local: np.ndarray,
    variances: np.ndarray,
    active: np.ndarray,
    fixed: np.ndarray,
    factors: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Votes [d, F], accuracy and bootstrap interval from local variances [votes, d]."""
    dims = len(variances)
    if not active.any():
        zeros = np.zeros((dims, factors), int)
        return {"value": 0.0, "interval": (0.0, 0.0), "votes": zeros}
    ratio = np.where(active, local / np.where(active, variances, 1.0), np.inf)
    chosen = ratio.argmin(axis=1)
    votes = np.bincount(chosen * factors + fixed, minlength=dims * factors).reshape(dims, factors)
    right = votes.argmax(axis=1)[chosen] == fixed
    # The classifier stays that of all votes: made anew from each resample it would flatter them.
    means = right[rng.integers(0, len(right), (1000, len(right)))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return {
        "value": float(right.mean()),
        "interval": (float(low), float(high)),
        "votes": votes,
    }
