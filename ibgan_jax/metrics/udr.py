"""Unsupervised disentanglement ranking, UDR (Duan et al. 2020, arXiv 1905.12614).

Trainings that disentangle find the same dimensions whatever their seed, but for order and sign;
those that do not are each entangled in their own way. So a member that agrees with the others, one
dimension to one, is likely to be disentangled, and no label is needed to see it.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.metric import settings_of
from ibgan_jax.metrics.score import scikit_learn
from ibgan_jax.metrics.selection import Selection, check_members, finite, spearman


@dataclasses.dataclass(frozen=True)
class UdrProtocol:
    """The numbers of one protocol.

    Attributes:
      threshold: nats; a dimension that does not carry more is left out.
      penalty: of the Lasso's weights, for standardised codes; None is rank correlation instead.
    """

    threshold: float
    penalty: float | None = None


# UDR_S and UDR_L of the paper, with the numbers of its authors' code in disentanglement_lib.
PROTOCOLS = {"spearman": UdrProtocol(0.01), "lasso": UdrProtocol(0.01, penalty=0.1)}


def udr(codes: ArrayLike, nats: ArrayLike, protocol: str = "spearman") -> Selection:
    """How well each member's dimensions agree, one to one, with those of the other members.

    A pair's similarities R(a, b) are the absolute rank correlations of their dimensions, or the
    absolute weights of Lasso regressions of one member's dimensions on the other's, all of their
    informative dimensions (KL above 0.01 nats) only. With r_a(b) = max_a R(a, b) and r_b(a) =
    max_b R(a, b) a pair's score is, as in the paper's equation for UDR_ij,

        1 / (d_a + d_b) [ sum_b r_a(b)^2 / sum_a R(a, b) + sum_a r_b(a)^2 / sum_b R(a, b) ]

    where d_a and d_b count the informative dimensions. A dimension similar to none adds 0, and a
    pair has 0 where a member has no informative dimension. A member's value is the median over
    its pairs with all others, as in disentanglement_lib. That code differs in one point: it takes
    the mean of both sums' means, which is the same where d_a = d_b.

    In `pairs` [i, j] the Lasso predicts member i's dimensions from member j's; rank correlation
    is symmetric. The Lasso takes its penalty from every weight: members alike but for order and
    sign have 1 by rank correlation, but about 1 - penalty = 0.9 by the Lasso. The number of
    dimensions is not rewarded: members that share the only dimension they use have 1.

    Args:
      codes: [M, N, d], the codes of the same N images by M members of one hyperparameter setting
        that differ in their seeds.
      nats: [M, d], the mean KL divergence from the prior of each member's dimensions, or what
        else tells how much they carry, in nats.
      protocol: a name in PROTOCOLS.

    Details: `informative`, bool [M, d].

    Raises:
      UserError: unknown protocol, fewer than two members or images, codes or nats of another
        shape or not finite, or no scikit-learn where the Lasso is needed.
    """
    settings = settings_of(PROTOCOLS, protocol)
    codes, nats = finite("codes", codes, "[M, N, d]"), finite("nats", nats, "[M, d]")
    members, images, dims = codes.shape
    check_members(members)
    if images < 2:
        raise UserError(f"codes must be of two images or more; got shape {codes.shape}")
    if nats.shape != (members, dims):
        raise UserError(f"nats must be [{members}, {dims}] as the codes; got shape {nats.shape}")
    informative = nats > settings.threshold
    similar = _rank_similarities(codes)
    if settings.penalty is not None:
        similar = _lasso_similarities(codes, informative, settings.penalty)
    pairs = np.zeros((members, members))
    for i, j in np.ndindex(pairs.shape):
        pairs[i, j] = _agreement(similar[i, j][informative[i]][:, informative[j]])
    others = pairs[~np.eye(members, dtype=bool)].reshape(members, members - 1)
    return Selection(
        values=np.median(others, axis=1),
        pairs=pairs,
        metric="udr",
        protocol=protocol,
        settings=dataclasses.asdict(settings),
        details={"informative": informative},
    )


def _agreement(similar: np.ndarray) -> float:
    """UDR of similarities [d_a, d_b] between the informative dimensions of two members."""
    if not similar.size:
        return 0.0
    terms = 0.0
    for axis in (0, 1):
        sums = similar.sum(axis=axis)
        terms += (similar.max(axis=axis) ** 2 / np.where(sums > 0, sums, 1.0)).sum()
    return float(terms / sum(similar.shape))


def _rank_similarities(codes: np.ndarray) -> np.ndarray:
    """Codes [M, N, d] -> absolute rank correlations [M, M, d, d]; 0 of a constant dimension."""
    members, images, dims = codes.shape
    correlations = spearman(codes.transpose(1, 0, 2).reshape(images, members * dims))
    blocks = correlations.reshape(members, dims, members, dims).transpose(0, 2, 1, 3)
    return np.abs(np.nan_to_num(blocks))


def _lasso_similarities(codes: np.ndarray, informative: np.ndarray, penalty: float) -> np.ndarray:
    """Codes [M, N, d] -> absolute weights [M, M, d, d]: of predicting (i, a) from (j, b).

    Only informative dimensions predict or are predicted; the weights of all others are 0.
    """
    linear_model = scikit_learn("linear_model")
    deviations = codes.std(axis=1, keepdims=True)
    standard = (codes - codes.mean(axis=1, keepdims=True)) / np.where(deviations > 0, deviations, 1)
    members, _, dims = codes.shape
    similar = np.zeros((members, members, dims, dims))
    for i, j in np.ndindex(members, members):
        rows, columns = np.flatnonzero(informative[i]), np.flatnonzero(informative[j])
        if len(rows) and len(columns):
            model = linear_model.Lasso(alpha=penalty)
            model.fit(standard[j][:, columns], standard[i][:, rows])
            similar[i, j][np.ix_(rows, columns)] = np.abs(model.coef_.reshape(len(rows), -1))
    return similar
