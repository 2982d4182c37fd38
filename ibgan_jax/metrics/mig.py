"""The mutual information gap (Chen et al. 2018, section 4) in its two published protocols."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import mutual_information as mi
from ibgan_jax.metrics.encoding import BATCH_SIZE, CodesOf, Encoder, FactorDataset
from ibgan_jax.metrics.metric import Setup, metric
from ibgan_jax.metrics.score import Result, Score, bootstrap

PosteriorOf = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class BinProtocol:
    """Numbers of a protocol that bins codes.

    Attributes:
      images: how many are drawn.
      bins: of equal width, from a dimension's least code to its greatest.
    """

    images: int
    bins: int


@dataclasses.dataclass(frozen=True)
class PosteriorProtocol:
    """Numbers of a protocol that takes the posterior q(z|x) itself.

    Attributes:
      images: whose posteriors are mixed to q(z_j) and q(z_j|v_k), and which give a sample each.
    """

    images: int


PROTOCOLS = {
    "disentanglement_lib": BinProtocol(10_000, 20),
    # Chen et al. mix the posteriors of all 737,280 images of dSprites, which takes hours on a CPU.
    "chen2018": PosteriorProtocol(10_000),
}


def mig(
    codes_of: CodesOf | Encoder | None,
    dataset: FactorDataset,
    key: jax.Array,
    protocol: str | None = None,
    batch_size: int = BATCH_SIZE,
    posterior_of: PosteriorOf | None = None,
) -> Score:
    """How much more the best dimension tells of a factor than the next best does: 1 is ideal.

    Args:
      codes_of: as in every metric; `chen2018` does without (None).
      dataset, key, protocol, batch_size: as in every metric. `disentanglement_lib` (the default)
        bins codes, `chen2018` takes Gaussian posteriors.
      posterior_of: images -> (means [B, d], log variances [B, d]); only for `chen2018`.

    Details: `mutual_information` [d, F] and `entropies` [F], in nats.

    Raises:
      UserError: as every metric, or `chen2018` without posterior_of.
    """
    if isinstance(mig.protocols.get(protocol), PosteriorProtocol):
        if posterior_of is None:
            raise UserError(
                f"MIG's protocol {protocol!r} needs posterior_of: images -> (means, log variances)"
            )
        codes_of = lambda images: jnp.concatenate(posterior_of(images), axis=-1)  # noqa: E731
    return _gap(codes_of, dataset, key, protocol, batch_size)


@metric("mig", PROTOCOLS)
def _gap(setup: Setup, settings: BinProtocol | PosteriorProtocol) -> Result:
    """The gap of binned codes, or of posteriors whose means and log variances are the codes."""
    factors = setup.draw(settings.images)
    codes = setup.encode(factors)
    if isinstance(settings, BinProtocol):
        return mig_of(codes, factors, settings.bins, setup.rng)
    return posterior_mig_of(*np.split(codes, 2, axis=-1), factors, setup.rng)


mig.protocols = _gap.protocols


def mig_of(
    codes: np.ndarray,
    factors: np.ndarray,
    bins: int = 20,
    rng: np.random.Generator | None = None,
) -> Result:
    """MIG of codes [N, d] and factors [N, F], as Locatello et al. 2019 estimate it.

    Information is that of the observed frequencies of codes in `bins` bins of equal width.
    A factor with one value is left out of the average.
    """
    labels, cells = mi.numbered(factors), mi.binned(codes, bins)
    matrix, entropies = mi.informations(cells, labels)
    value = mi.mean_gap(matrix, entropies)
    interval = mi.resampled(mi.mean_gap, value, cells, labels, rng or np.random.default_rng(0))
    return Result(value, interval, {"mutual_information": matrix, "entropies": entropies})


def posterior_mig_of(
    means: np.ndarray,
    log_variances: np.ndarray,
    factors: np.ndarray,
    rng: np.random.Generator | None = None,
) -> Result:
    """MIG of Gaussian posteriors q(z|x) with `means` and `log_variances` [N, d], factors [N, F].

    I(z_j; v_k) = E[log q(z_j|v_k) - log q(z_j)] over one sample of each posterior, where q(z_j) and
    q(z_j|v_k) mix the posteriors of all images and of those with that value (Chen et al. 2018,
    section 4.1 and appendix C). A sample's own image is part of both mixtures, as in the paper.
    With n images of a value this adds about w / n to the information, w being how many times wider
    q(z_j) is than the posterior; the gap cancels it where both dimensions have much the same w.
    The paper leaves dSprites' shape out of the average; here every factor that varies is in it.
    """
    rng = rng or np.random.default_rng(0)
    labels = mi.numbered(factors)
    entropies = mi.informations(labels[:, :1], labels)[1]
    samples = means + np.exp(0.5 * log_variances) * rng.standard_normal(means.shape)
    terms = _information_terms(samples, means, log_variances, labels)

    def gap(information: np.ndarray) -> float:
        return mi.mean_gap(np.maximum(information, 0.0), entropies)

    matrix = np.maximum(terms.mean(axis=0), 0.0)
    details = {"mutual_information": matrix, "entropies": entropies}
    return Result(gap(matrix), bootstrap(terms, gap, rng), details)


def _information_terms(
    samples: np.ndarray, means: np.ndarray, log_variances: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """log q(z_j|v_k) - log q(z_j) of each sample: [N, d, F]."""
    values = labels.max(axis=0) + 1
    starts = np.concatenate([[0], np.cumsum(values)[:-1]])
    columns = labels + starts
    member = np.zeros((len(labels), values.sum()), np.float32)
    member[np.arange(len(labels))[:, None], columns] = 1.0
    rows = np.array_split(np.arange(len(samples)), max(1, len(samples) // 500))
    terms = [
        [
            np.asarray(_mixtures(*(x[:, j] for x in (means, log_variances)), member, z, c))
            for z, c in ((samples[part, j], columns[part]) for part in rows)
        ]
        for j in range(samples.shape[1])
    ]
    return np.stack([np.concatenate(parts) for parts in terms], axis=1).astype(np.float64)


@jax.jit
def _mixtures(
    means: jax.Array, log_variances: jax.Array, member: jax.Array, z: jax.Array, columns: jax.Array
) -> jax.Array:
    """One dimension's terms [S, F] of samples z [S].

    Args:
      means, log_variances: [N], of the posteriors.
      member: [N, V], 1 where an image has the value of a column; each factor has its own columns.
      z: [S].
      columns: int [S, F], the columns of each sample's own values.
    """
    scaled = (z[:, None] - means) ** 2 * jnp.exp(-log_variances)
    log_density = -0.5 * (scaled + log_variances)  # [S, N], less log(2 pi) / 2
    # The greatest is taken out; a sample's own posterior is in every sum, so none underflows.
    density = jnp.exp(log_density - log_density.max(axis=1, keepdims=True))
    of_value = jnp.take_along_axis(density @ member, columns, axis=1)
    counts = member.sum(axis=0)[columns]
    return jnp.log(of_value / counts) - jnp.log(density.mean(axis=1, keepdims=True))
