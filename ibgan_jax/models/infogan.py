"""InfoGAN (Chen et al., NeurIPS 2016) and GAN (Goodfellow et al., 2014) as IB-GAN's baselines.

Both are IB-GAN without its encoder: G_theta takes z itself, so r = z and nothing bounds what the
images tell of it. InfoGAN's Eq. 6 with an information weight of 1 and a Gaussian q_phi of unit
variance: min over G, q and max over D of L_GAN(D, G) - E[log q(z|x)]. All of z is code, there is no
further incompressible noise, and it has as many dimensions as IB-GAN's r.

For GAN q_phi learns from generated images and sends nothing back to G, so that the GAN can be
scored. Networks, optimizers and instance noise are IB-GAN's.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from ibgan_jax.models.adversarial import Adversarial
from ibgan_jax.models.base import ByPlayer, Hparams


@dataclasses.dataclass(frozen=True)
class InfoGAN(Adversarial):
    """G_theta(z), q_phi and D_w; the representation is q_phi's mean zhat(x)."""

    headline = ("bounds/lower", "probability/real", "probability/generated")
    share = "information"
    symbol = "z"
    grid: ClassVar[dict] = {}

    def represent(self, variables: ByPlayer, images: jax.Array) -> jax.Array:
        """q_phi's mean, without noise: [B, 64, 64, C] -> [B, z]."""
        return self.reconstruct(variables, images)

    def bounds(
        self, variables: ByPlayer, key: jax.Array, images: jax.Array, hparams: Hparams
    ) -> dict[str, jax.Array]:
        """I_L and each dimension's share in it, in nats, over as many draws of z as images.

        q_phi reads generated images that are moved and noisy, as `seen` makes them at this step.
        BatchNorm is in evaluation mode. The real images [B, H, W, C] themselves are not looked at.
        """
        key_z, key_noise = jax.random.split(key)
        z = jax.random.normal(key_z, (len(images), self.z_dim))
        x = self.seen(key_noise, self.generate(variables, z), hparams)[-1]
        share = _shares(z, self.reconstruct(variables, x))
        return {"lower_bound": jnp.sum(share), "information": share}

    def _read_back(self, z: jax.Array, z_mean: jax.Array) -> dict[str, jax.Array]:
        share = _shares(z, z_mean)
        shown = {f"information/{i}": value for i, value in enumerate(share)}
        return {"bounds/lower": jnp.sum(share), **shown}


@dataclasses.dataclass(frozen=True)
class GAN(InfoGAN):
    """InfoGAN whose q_phi only looks on."""

    informed = False


def _shares(z: jax.Array, z_mean: jax.Array) -> jax.Array:
    """I_L dimension by dimension, in nats: z and zhat [B, z] -> [z]."""
    return 0.5 * jnp.mean(z**2 - (z - z_mean) ** 2, axis=0)
