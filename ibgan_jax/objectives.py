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


def moved(key: jax.Array, images: jax.Array, shift: tuple[float, float], zoom: float) -> jax.Array:
    """Translates and zooms each image [B, H, W, C] in [-1, 1] at random.

    Each image is enlarged exp(N(0, zoom^2)) times about its centre of brightness, so that what it
    shows stays in place, then moved down and right by N(0, shift^2) pixels, where `shift` has one
    number for either direction. Beyond an edge the image is mirrored. Every new pixel is a copy of
    the nearest old one: interpolation would blur the images that a network is trained on, and
    those that it is used on later are sharp.
    """
    key_shift, key_zoom = jax.random.split(key)
    batch, height, width, _ = images.shape
    offsets = jax.random.normal(key_shift, (2, batch, 1), images.dtype)
    factors = jnp.exp(zoom * jax.random.normal(key_zoom, (batch, 1), images.dtype))
    brightness = jnp.mean(images, axis=-1) + 1.0

    def choice(length: int, axis: int) -> jax.Array:
        """1 where a new pixel copies an old one, else 0: [B, length new, length old]."""
        at = jnp.arange(length, dtype=images.dtype)
        mass = jnp.sum(brightness, axis=2 - axis) + 1e-6  # that of a black image is in the middle
        centre = (mass @ at / jnp.sum(mass, axis=1))[:, None]
        source = (at - centre - shift[axis] * offsets[axis]) / factors + centre
        cell = jnp.mod(jnp.round(source), 2 * length)
        mirrored = jnp.minimum(cell, 2 * length - 1 - cell)
        return (mirrored[:, :, None] == at).astype(images.dtype)

    rows, columns = choice(height, 0), choice(width, 1)
    return jnp.einsum("bij,bkl,bjlc->bikc", rows, columns, images)


def bernoulli_reconstruction(images: jax.Array, logits: jax.Array) -> jax.Array:
    """-log p(x|z) of Bernoulli pixels: images in [0, 1] and logits, [B, H, W, C] -> [B].

    -sum (x log p + (1 - x) log(1 - p)), no constant dropped (Kingma and Welling 2014, appendix
    C.1). For grey levels it is the cross-entropy, as disentanglement_lib uses it.
    """
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, images), axis=(1, 2, 3))


def gaussian_log_density(x: jax.Array, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """log N(x; mean, exp(log_variance)), element by element; no constant dropped."""
    return -0.5 * (jnp.log(2 * jnp.pi) + log_variance + (x - mean) ** 2 * jnp.exp(-log_variance))


def total_correlation(
    z: jax.Array, mean: jax.Array, log_variance: jax.Array, size: int, estimator: str
) -> jax.Array:
    """log q(z) - sum_j log q(z_j), whose mean over q(z) is the total correlation: [B, d] -> [B].

    Estimated within the minibatch as beta-TCVAE does (Chen et al. 2018, Eq. S4 and S6, and their
    code), z [B, d] being draws from q(z|x) = N(mean, diag exp(log_variance)) of B out of `size`
    examples, no constant dropped:

    - "weighted": log q(z_i) = log 1/(N B) sum_j q(z_i | x_j).
    - "stratified": the same sum with weight 1/N for the example that made z_i, (N - B + 1) /
      (N (B - 1)) for one other and 1/(B - 1) for the rest.

    disentanglement_lib drops the weighted estimator's constant, (d - 1) log(N B), which moves no
    gradient.
    """
    batch = len(z)
    # [B, B, d]: log q of draw i's dimension under the posterior of example j.
    each = gaussian_log_density(z[:, None], mean[None], log_variance[None])
    weights = log_importance_weights(batch, size, estimator)
    joint = jax.nn.logsumexp(weights + jnp.sum(each, axis=-1), axis=1)
    marginals = jax.nn.logsumexp(weights[..., None] + each, axis=1)
    return joint - jnp.sum(marginals, axis=-1)


def log_importance_weights(batch: int, size: int, estimator: str) -> jax.Array:
    """The logarithms of the weights of q(z_i | x_j) in q(z_i), [B, B]; see `total_correlation`."""
    if estimator == "weighted":
        return jnp.full((batch, batch), -jnp.log(float(size) * batch))
    rest, other = 1.0 / (batch - 1), (size - batch + 1) / (size * (batch - 1))
    own = jnp.arange(batch)
    weights = jnp.full((batch, batch), rest).at[own, (own + 1) % batch].set(other)
    return jnp.log(weights.at[own, own].set(1.0 / size))


def permute_dimensions(key: jax.Array, z: jax.Array) -> jax.Array:
    """Draws from the product of marginals: every dimension of z [B, d] permuted over the batch.

    Algorithm 1 of FactorVAE (Kim and Mnih 2018).
    """
    return jax.random.permutation(key, z, axis=0, independent=True)
