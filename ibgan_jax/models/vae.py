"""VAE (Kingma and Welling 2014) and beta-VAE (Higgins et al. 2017, Eq. 4).

max over theta, phi of E_q(z|x)[log p_theta(x|z)] - beta KL(q_phi(z|x) || p(z)), p(z) = N(0, I),
with a Gaussian q of diagonal covariance and Bernoulli pixels; beta = 1 is the VAE. Losses are
minimised, so signs are turned; no constant is dropped. Networks, optimizer and batch are those of
disentanglement_lib (Locatello et al. 2019).

FactorVAE and beta-TCVAE differ only in what stands beside the reconstruction: `regulariser`.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import ClassVar

import jax
import jax.numpy as jnp
import optax

from ibgan_jax import objectives
from ibgan_jax.models.base import ByPlayer, Hparams, Settings
from ibgan_jax.networks.conv_vae import ConvDecoder, ConvEncoder

Posterior = tuple[jax.Array, jax.Array, jax.Array]  # mean, log-variance and a draw z, each [B, d]


@dataclasses.dataclass(frozen=True)
class VAE(Settings):
    """q_phi(z|x) and p_theta(x|z); the representation is q's mean."""

    players = ("encoder", "decoder")
    hparams: ClassVar[dict] = {"beta": 1.0, "lr_encoder": 1e-4, "lr_decoder": 1e-4}
    grid: ClassVar[dict] = {}
    recipe: ClassVar[dict] = {"steps": 300_000}
    headline = ("loss/reconstruction", "bounds/upper", "elbo")
    share = "kl"
    symbol = "z"
    batches = 1

    @cached_property
    def encoder(self) -> ConvEncoder:
        return ConvEncoder(self.z_dim)

    @cached_property
    def decoder(self) -> ConvDecoder:
        return ConvDecoder(self.channels)

    def check_hparams(self, hparams: dict[str, float]) -> None:
        """Any finite numbers, 0 or more, will do."""

    def init(self, key: jax.Array) -> ByPlayer:
        """Variables {player: {"params", "batch_stats"}}; nothing here has batch statistics."""
        key_e, key_d = jax.random.split(key)
        made = {
            "encoder": self.encoder.init(key_e, jnp.zeros((1, *self.image_shape))),
            "decoder": self.decoder.init(key_d, jnp.zeros((1, self.z_dim))),
        }
        return {player: {"params": v["params"], "batch_stats": {}} for player, v in made.items()}

    def schedule(self, hparams: Hparams, step: jax.Array) -> Hparams:
        """The same at every step."""
        del step
        return hparams

    def optimizers(self, hparams: Hparams) -> dict[str, optax.GradientTransformation]:
        """Adam(0.9, 0.999, eps 1e-8) for each player."""
        return {player: optax.adam(hparams[f"lr_{player}"]) for player in self.players}

    def gradients(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        images: jax.Array,
        key: jax.Array,
        hparams: Hparams,
    ) -> tuple[ByPlayer, ByPlayer, dict[str, jax.Array]]:
        """Gradients of -E[log p(x|z)] + `regulariser` for both players.

        Args:
          params, batch_stats: keyed by player.
          images: [B, 64, 64, channels] in [-1, 1].
          key: of this step alone.
          hparams: from `schedule`.

        Returns:
          gradients and batch_stats keyed by player; scalar metrics in nats: the loss, its parts,
          the ELBO, every KL(q(z_i|x) || p(z_i)).
        """
        gradients, _, shown = self._vae_gradients(params, images, key, hparams)
        return gradients, batch_stats, shown

    def _vae_gradients(
        self, params: ByPlayer, images: jax.Array, key: jax.Array, hparams: Hparams
    ) -> tuple[ByPlayer, Posterior, dict[str, jax.Array]]:
        """(gradients of encoder and decoder, the posterior at the images, metrics)."""

        def loss(vae: ByPlayer) -> tuple[jax.Array, tuple]:
            mean, log_variance, z = posterior = self._posterior(vae, images, key)
            reconstruction = self._reconstruction(vae, images, z)
            kl = jnp.mean(objectives.gaussian_kl(mean, log_variance), axis=0)
            penalty, shown = self.regulariser(params, posterior, jnp.sum(kl), hparams)
            shown |= {"loss/reconstruction": reconstruction, "loss/regulariser": penalty}
            shown |= {"elbo": -reconstruction - jnp.sum(kl), "bounds/upper": jnp.sum(kl)}
            shown |= {f"kl/{i}": value for i, value in enumerate(kl)}
            return reconstruction + penalty, (posterior, shown)

        vae = {player: params[player] for player in VAE.players}
        (_, (posterior, shown)), gradients = jax.value_and_grad(loss, has_aux=True)(vae)
        return gradients, posterior, shown

    def _posterior(self, params: ByPlayer, images: jax.Array, key: jax.Array) -> Posterior:
        mean, log_variance = self.encoder.apply({"params": params["encoder"]}, images01(images))
        return mean, log_variance, objectives.reparametrise(key, mean, log_variance)

    def _reconstruction(self, params: ByPlayer, images: jax.Array, z: jax.Array) -> jax.Array:
        logits = self.decoder.apply({"params": params["decoder"]}, z)
        return jnp.mean(objectives.bernoulli_reconstruction(images01(images), logits))

    def regulariser(
        self, params: ByPlayer, posterior: Posterior, kl: jax.Array, hparams: Hparams
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What stands beside the reconstruction, here beta KL, and further metrics.

        `params` are every player's, for encoder and decoder without a gradient; `kl` [] is
        KL(q(z|x) || p(z)), averaged over the batch.
        """
        del params, posterior
        return hparams["beta"] * kl, {}

    def generate(self, variables: ByPlayer, codes: jax.Array) -> jax.Array:
        """The pixels' means, scaled to [-1, 1]: [B, z] -> [B, 64, 64, channels]."""
        logits = self.decoder.apply({"params": variables["decoder"]["params"]}, codes)
        return 2 * jax.nn.sigmoid(logits) - 1

    def represent(self, variables: ByPlayer, images: jax.Array) -> jax.Array:
        """The mean of q(z|x): [B, 64, 64, C] -> [B, z]."""
        return self.posterior(variables, images)[0]

    def posterior(self, variables: ByPlayer, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of q(z|x): [B, 64, 64, C] -> [B, z] each."""
        return self.encoder.apply({"params": variables["encoder"]["params"]}, images01(images))

    def bounds(
        self, variables: ByPlayer, key: jax.Array, images: jax.Array, hparams: Hparams
    ) -> dict[str, jax.Array]:
        """ELBO, -log p(x|z), I_U = E[KL(q(z|x) || p(z))] and KL_i at images [B, H, W, C]; nats."""
        del hparams
        params = {player: parts["params"] for player, parts in variables.items()}
        mean, log_variance, z = self._posterior(params, images, key)
        reconstruction = self._reconstruction(params, images, z)
        kl = jnp.mean(objectives.gaussian_kl(mean, log_variance), axis=0)
        return {
            "elbo": -reconstruction - jnp.sum(kl),
            "reconstruction": reconstruction,
            "upper_bound": jnp.sum(kl),
            "kl": kl,
        }


@dataclasses.dataclass(frozen=True)
class BetaVAE(VAE):
    """The VAE whose KL weighs beta > 1; the grid is disentanglement_lib's."""

    hparams: ClassVar[dict] = VAE.hparams | {"beta": 4.0}
    grid: ClassVar[dict] = {"beta": (1.0, 2.0, 4.0, 6.0, 8.0, 16.0)}


def images01(images: jax.Array) -> jax.Array:
    """[-1, 1] -> [0, 1], what Bernoulli pixels are."""
    return 0.5 * (images + 1.0)
