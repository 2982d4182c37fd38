"""Densities, divergences and losses: one value for each example [B] (or each example and
dimension [B, d]), in nats. Averaging over the batch happens once, last, in the models."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax


def gaussian_kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL( N(mean, diag exp(log_variance)) || N(0, I) ), dimension by dimension: [B, d] -> [B, d].

    -1/2 (1 + log s^2 - m^2 - s^2), no constant dropped (Kingma and Welling 2014, appendix B). Its
    sum over d, averaged over z, is IB-GAN's upper bound I_U.
    """
    return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance)


def reparametrise(key: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """A draw r = mean + sigma eps with eps ~ N(0, I): [B, d] -> [B, d]."""
    return mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape, mean.dtype)


def reconstruction(z: jax.Array, z_mean: jax.Array) -> jax.Array:
    """-log q(z|x) for the unit-variance Gaussian q_phi: [B, z] -> [B].

    1/2 sum_j (z_j - zhat_j)^2; the constant (z/2) log 2 pi is dropped. IB-GAN's Eq. 11 minimises
    it; the printed Algorithm 1 has the opposite sign, which would push the reconstruction apart.
    """
    return 0.5 * jnp.sum((z - z_mean) ** 2, axis=-1)


def lower_bound(z: jax.Array, z_mean: jax.Array) -> jax.Array:
    """I_L = E[log q(z|x)] + H(z) for z ~ N(0, I), example by example: [B, z] -> [B].

    IB-GAN's variational lower bound as sum_j (z_j^2 - (z_j - zhat_j)^2) / 2: H(z) is estimated on
    the same draws, which cancels most of the variance; the constants of the terms cancel exactly.
    """
    return 0.5 * jnp.sum(z**2, axis=-1) - reconstruction(z, z_mean)


def adversarial(logits: jax.Array, labels: jax.Array | float) -> jax.Array:
    """Cross-entropy of the labels against sigmoid(logits): [B] -> [B] (Goodfellow et al. 2014).

    With labels of 1 on generated images it is the non-saturating generator loss.
    """
    return optax.sigmoid_binary_cross_entropy(logits, jnp.broadcast_to(labels, logits.shape))


def instance_noise(key: jax.Array, images: jax.Array, level: jax.Array) -> jax.Array:
    """Images [B, H, W, C] plus level * N(0, 1), clipped to [-1, 1] (Sonderby et al. 2017).

    At level 0 images in [-1, 1] pass unchanged.
    """
    noise = jax.random.normal(key, images.shape, images.dtype)
    return jnp.clip(images + level * noise, -1.0, 1.0)
