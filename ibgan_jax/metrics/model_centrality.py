"""ModelCentrality (Lin et al. 2020, "InfoGAN-CR and ModelCentrality", arXiv 1906.06034).

Members that disentangle are alike and members that do not are each different, so the member that
is closest to all others, the medoid, is likely to be a good one. How alike two members are is the
FactorVAE score with one of them, its generator, in the place of the data and its factors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.encoding import CodesOf
from ibgan_jax.metrics.factor_vae import least_varying, majority_vote
from ibgan_jax.metrics.metric import settings_of
from ibgan_jax.metrics.selection import Selection, check_members, finite

Generate = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class CentralityProtocol:
    """The numbers of one protocol.

    Attributes:
      votes: how many each dimension of the generator's code gets; the dimensions take turns.
      samples: images behind a vote, alike in one dimension of their code.
      normaliser_samples: further images that tell the variance of the encoder's dimensions.
      threshold: nats; an encoder's dimension that does not carry more never gets a vote. None
        lets every dimension vote.
    """

    votes: int
    samples: int
    normaliser_samples: int
    threshold: float | None


PROTOCOLS = {
    # For codes of 10 dimensions 3,488 images an ordered pair; a collapsed dimension, which may
    # rest at its mean but for rare images and would win votes by that, is kept out.
    "short": CentralityProtocol(10, 32, 288, 0.01),
    # The authors' code for dSprites: 500 votes of InfoGAN-CR's 5 dimensions and 1,000 of
    # FactorVAE's 10, and a tenth as many images as dSprites has for the normaliser.
    "lin2020": CentralityProtocol(100, 100, 73_728, None),
}


def model_centrality(
    generators: Sequence[Generate],
    encoders: Sequence[CodesOf],
    nats: ArrayLike,
    key: jax.Array,
    protocol: str = "short",
) -> Selection:
    """How alike each member is, on average, to the other members, by each other's images.

    For each vote one dimension of the code is held, the others are drawn from the prior N(0, I),
    and member i makes the images; the dimension of member j's code with the least variance,
    normalised by its variance over images of free codes, votes for the dimension that was held.
    The accuracy B_ij is that of the classifier that gives each dimension of j the dimension of i
    that it was chosen for most often, on the same votes. `pairs` are A_ij = (B_ij + B_ji) / 2 and
    a member's value is the mean of A_ij over the others (the paper's section on ModelCentrality).

    Every dimension is held in turn, those that are switched off as well: so does the authors'
    code. Nothing is held in the images then, the votes fall at random and count against the
    member. Were they left out, a member that collapsed to one dimension would leave nothing to
    mistake and agree with everyone. Values therefore compare members with codes of as many
    dimensions, and even perfect members with k of d dimensions in use have about k / d.

    Chance is above 1 / d, since each dimension takes its luckiest one: about 0.26 by "short" and
    0.15 by "lin2020" at d = 10.

    Every generator is given the same codes; each image is made once and encoded by all members.
    There are ceil(normaliser_samples / samples) + votes * d batches of `samples` codes, each made
    by M generators and encoded M times: (M + M^2) calls a batch. Codes go to the host after each.

    Args:
      generators: M functions, codes [B, d] -> images [B, H, W, C]; jitted, as every call has the
        same shape.
      encoders: M functions, images -> codes [B, d], also jitted.
      nats: [M, d], what each dimension of each member carries: its mean KL divergence from the
        prior or the like, in nats.
      key: a JAX random key; it alone decides the draws.
      protocol: a name in PROTOCOLS.

    Details: `accuracies` [M, M], B_ij: images by i, codes by j. The diagonal, a member that reads
    its own images, is in no value. `active`, bool [M, d]: the dimensions that may vote.

    Raises:
      UserError: unknown protocol, fewer than two members, not as many generators, encoders and
        rows of nats, or codes that are not finite [B, d].
    """
    settings = settings_of(PROTOCOLS, protocol)
    nats = finite("nats", nats, "[M, d]")
    members, dims = nats.shape
    check_members(len(generators))
    if not len(generators) == len(encoders) == members:
        raise UserError(
            "one generator, encoder and row of nats a member; got "
            f"{len(generators)}, {len(encoders)} and {members}"
        )
    may_vote = np.ones_like(nats, bool) if settings.threshold is None else nats > settings.threshold
    words = np.asarray(jax.random.key_data(key)).ravel()
    fixed, batches = _draw_codes(np.random.default_rng(words), dims, settings)
    accuracies = np.zeros((members, members))
    for i, generate in enumerate(generators):
        for j, codes in enumerate(_encoded(generate, encoders, batches, i)):
            accuracies[i, j] = _accuracy(codes, fixed, may_vote[j], settings)
    pairs = (accuracies + accuracies.T) / 2
    others = pairs[~np.eye(members, dtype=bool)].reshape(members, members - 1)
    return Selection(
        values=others.mean(axis=1),
        pairs=pairs,
        metric="model_centrality",
        protocol=protocol,
        settings=dataclasses.asdict(settings),
        key=words.tolist(),
        details={"accuracies": accuracies, "active": may_vote},
    )


def _draw_codes(
    rng: np.random.Generator, dims: int, settings: CentralityProtocol
) -> tuple[np.ndarray, np.ndarray]:
    """(the held dimension [V] of each vote, codes float32 [V + R, samples, d]).

    The first V batches are alike in the held dimension, the other R are free.
    """
    votes, free = settings.votes * dims, -(-settings.normaliser_samples // settings.samples)
    codes = rng.standard_normal((votes + free, settings.samples, dims)).astype(np.float32)
    rows, fixed = np.arange(votes), np.arange(votes) % dims
    codes[rows, :, fixed] = codes[rows, :1, fixed]
    return fixed, codes


def _encoded(
    generate: Generate, encoders: Sequence[CodesOf], batches: np.ndarray, member: int
) -> np.ndarray:
    """The codes float32 [M, V + R, samples, d] that all encoders give one generator's images."""
    found = np.empty((len(encoders), *batches.shape), np.float32)
    for number, batch in enumerate(batches):
        images = generate(jnp.asarray(batch))
        # All are dispatched before any is fetched; the next batch waits, or images would pile up.
        parts = [encode(images) for encode in encoders]
        for j, part in enumerate(parts):
            if np.shape(part) != batch.shape:
                raise UserError(f"member {j}'s codes must be {batch.shape}; got {np.shape(part)}")
            found[j, number] = part
    for j, codes in enumerate(found):
        if not np.isfinite(codes).all():
            raise UserError(f"member {j}'s codes of member {member}'s images are not finite")
    return found


def _accuracy(
    codes: np.ndarray, fixed: np.ndarray, may_vote: np.ndarray, settings: CentralityProtocol
) -> float:
    """B_ij of codes [V + R, samples, d]; 0 where no dimension that may vote varies."""
    codes = codes.astype(np.float64)
    votes, dims = len(fixed), codes.shape[-1]
    free = codes[votes:].reshape(-1, dims)[: settings.normaliser_samples]
    variances = free.var(axis=0, ddof=1)
    active = may_vote & (variances > 0)
    if not active.any():
        return 0.0
    chosen = least_varying(codes[:votes].var(axis=1, ddof=1), variances, active)
    return float(majority_vote(chosen, fixed, dims, dims)[1].mean())
