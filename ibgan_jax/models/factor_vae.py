"""FactorVAE (Kim and Mnih, ICML 2018): a VAE that pays gamma for a discriminator's estimate of TC.

Eq. 2 and 3: -E[log p(x|z)] + KL(q(z|x) || p(z)) + gamma E_q(z)[log D(z) / (1 - D(z))], where D(z)
is the probability that z is a draw from q(z), not from the product of its marginals. Algorithm 2: D
learns from z of one batch and from z' of a second one whose dimensions are permuted one by one.

The paper updates D after the VAE, with the encoder as it was; so do we, all gradients at one point.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from ibgan_jax import objectives
from ibgan_jax.models.base import ByPlayer, Hparams
from ibgan_jax.models.vae import VAE, Posterior
from ibgan_jax.networks.mlp import CodeDiscriminator


@dataclasses.dataclass(frozen=True)
class FactorVAE(VAE):
    """The VAE's players and the discriminator D of codes.

    Attributes:
      discriminator_hidden: units of D's layers.
    """

    discriminator_hidden: tuple[int, ...] = (1000,) * 6

    players = ("encoder", "decoder", "discriminator")
    hparams: ClassVar[dict] = {
        "gamma": 10.0,
        "lr_encoder": 1e-4,
        "lr_decoder": 1e-4,
        "lr_discriminator": 1e-4,
    }
    grid: ClassVar[dict] = {"gamma": (10.0, 20.0, 30.0, 40.0, 50.0, 100.0)}
    headline = ("loss/reconstruction", "bounds/upper", "total_correlation")
    batches = 2

    @cached_property
    def discriminator(self) -> CodeDiscriminator:
        return CodeDiscriminator(tuple(self.discriminator_hidden))

    def init(self, key: jax.Array) -> ByPlayer:
        """Variables {player: {"params", "batch_stats"}}; nothing here has batch statistics."""
        key, key_d = jax.random.split(key)
        made = self.discriminator.init(key_d, jnp.zeros((1, self.z_dim)))
        discriminator = {"params": made["params"], "batch_stats": {}}
        return {**super().init(key), "discriminator": discriminator}

    def optimizers(self, hparams: Hparams) -> dict[str, optax.GradientTransformation]:
        """Adam(0.9, 0.999) for the VAE, Adam(0.5, 0.9) for D."""
        made = {p: optax.adam(hparams[f"lr_{p}"]) for p in ("encoder", "decoder")}
        return {**made, "discriminator": optax.adam(hparams["lr_discriminator"], 0.5, 0.9)}

    def gradients(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        images: jax.Array,
        key: jax.Array,
        hparams: Hparams,
    ) -> tuple[ByPlayer, ByPlayer, dict[str, jax.Array]]:
        """Gradients of Eq. 2 for the VAE and of D's cross-entropy, at one point.

        Args and returns are the VAE's, but `images` [2 B, ...] are two batches of B.
        """
        first, second = jnp.split(images, 2)
        key, key_second, key_permutation = jax.random.split(key, 3)
        gradients, (_, _, z), shown = self._vae_gradients(params, first, key, hparams)
        z_second = self._posterior(params, second, key_second)[2]
        shuffled = objectives.permute_dimensions(key_permutation, z_second)

        def loss(w: dict) -> jax.Array:
            joint = objectives.adversarial(self._logits(w, z), 1.0)
            product = objectives.adversarial(self._logits(w, shuffled), 0.0)
            return 0.5 * (jnp.mean(joint) + jnp.mean(product))

        value, gradients["discriminator"] = jax.value_and_grad(loss)(params["discriminator"])
        return gradients, batch_stats, {**shown, "loss/discriminator": value}

    def regulariser(
        self, params: ByPlayer, posterior: Posterior, kl: jax.Array, hparams: Hparams
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """KL + gamma TC, averaged over the batch, and TC as D sees it: log D(z) / (1 - D(z))."""
        correlation = jnp.mean(self._logits(params["discriminator"], posterior[2]))
        return kl + hparams["gamma"] * correlation, {"total_correlation": correlation}

    def _logits(self, w: dict, z: jax.Array) -> jax.Array:
        """[B, z] -> [B]."""
        return self.discriminator.apply({"params": w}, z)
