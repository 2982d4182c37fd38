"""beta-TCVAE (Chen et al., NeurIPS 2018): a VAE that pays beta for its total correlation.

Eq. 4 with alpha = gamma = 1: E[log p(x|z)] - I(z; x) - beta TC(z) - sum_j KL(q(z_j) || p(z_j)). The
three add up to KL(q(z|x) || p(z)) at beta = 1, so the loss is, as in disentanglement_lib,

-E[log p(x|z)] + KL(q(z|x) || p(z)) + (beta - 1) TC(z)

with the closed form of the KL and the minibatch's estimate of TC (`objectives.total_correlation`).
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ibgan_jax import objectives
from ibgan_jax.errors import UserError
from ibgan_jax.models.base import ByPlayer, Hparams
from ibgan_jax.models.vae import VAE, Posterior

ESTIMATORS = ("weighted", "stratified")


@dataclasses.dataclass(frozen=True)
class BetaTCVAE(VAE):
    """The VAE's players with another regulariser.

    Attributes:
      estimator: of the total correlation, "weighted" (the paper's choice) or "stratified".
      dataset_size: N of the estimator; a run sets it to its data set's.
    """

    estimator: str = "weighted"
    dataset_size: int = 737_280

    hparams: ClassVar[dict] = VAE.hparams | {"beta": 6.0}
    grid: ClassVar[dict] = {"beta": (1.0, 2.0, 4.0, 6.0, 8.0, 10.0)}
    headline = ("loss/reconstruction", "bounds/upper", "total_correlation")

    def __post_init__(self) -> None:
        """Raises UserError naming a setting that cannot be."""
        super().__post_init__()
        if self.estimator not in ESTIMATORS:
            known = ", ".join(ESTIMATORS)
            raise UserError(f"network.estimator={self.estimator!r} is not one of: {known}")

    def regulariser(
        self, params: ByPlayer, posterior: Posterior, kl: jax.Array, hparams: Hparams
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """KL + (beta - 1) TC, averaged over the batch, and TC."""
        del params
        mean, log_variance, z = posterior
        correlation = jnp.mean(
            objectives.total_correlation(z, mean, log_variance, self.dataset_size, self.estimator)
        )
        return kl + (hparams["beta"] - 1.0) * correlation, {"total_correlation": correlation}
