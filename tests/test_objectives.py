"""Densities, divergences and losses against closed forms and integrals, with and without jit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized
from scipy import integrate, stats

from ibgan_jax import objectives

variants = chex.variants(with_jit=True, without_jit=True)
BATCH, DIM = 6, 4


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class GaussianKLTest(chex.TestCase):
    @variants
    @parameterized.parameters(
        (0.0, 1.0, 0.0),
        (3.0, 1.0, 4.5),  # m^2 / 2
        (0.0, np.e, (np.e**2 - 3) / 2),  # log s = 1
        (0.0, 1 / np.e, (1 + np.e**-2) / 2),  # log s = -1
        (-1.0, 2.0, 2.0 - np.log(2.0)),
    )
    def test_hand_computed(self, mean, sigma, expected):
        kl = self.variant(objectives.gaussian_kl)
        actual = kl(jnp.full((2, 3), mean), jnp.full((2, 3), 2 * np.log(sigma)))
        chex.assert_shape(actual, (2, 3))
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)

    @variants
    @parameterized.parameters((0.3, 0.5), (-2.0, 1.7), (1.0, 0.05))
    def test_equals_the_integral(self, mean, sigma):
        p, m = stats.norm(mean, sigma), stats.norm(0.0, 1.0)
        expected, _ = integrate.quad(
            lambda r: p.pdf(r) * (p.logpdf(r) - m.logpdf(r)), mean - 12 * sigma, mean + 12 * sigma
        )
        kl = self.variant(objectives.gaussian_kl)
        actual = kl(jnp.full((1, 1), mean), jnp.full((1, 1), 2 * np.log(sigma)))
        np.testing.assert_allclose(actual[0, 0], expected, rtol=1e-5)

    def test_positive_away_from_the_prior(self):
        kl = objectives.gaussian_kl(normal(0, 100, DIM), normal(1, 100, DIM))
        assert np.all(np.asarray(kl) > 0)


class ReconstructionTest(chex.TestCase):
    @variants
    def test_is_the_negative_log_likelihood(self):
        z, z_mean = normal(0, BATCH, DIM), normal(1, BATCH, DIM)
        actual = self.variant(objectives.reconstruction)(z, z_mean)
        chex.assert_shape(actual, (BATCH,))
        expected = -stats.norm(z_mean, 1.0).logpdf(z).sum(-1) - DIM / 2 * np.log(2 * np.pi)
        np.testing.assert_allclose(actual, expected, rtol=1e-5)

    @variants
    def test_descent_pulls_the_reconstruction_towards_z(self):
        z, z_mean = jnp.ones((1, DIM)), jnp.zeros((1, DIM))
        gradient = self.variant(jax.grad(lambda m: objectives.reconstruction(z, m).sum()))(z_mean)
        np.testing.assert_allclose(gradient, -1.0)


class LowerBoundTest(chex.TestCase):
    @variants
    def test_perfect_reconstruction(self):
        z = normal(0, BATCH, DIM)
        actual = self.variant(objectives.lower_bound)(z, z)
        chex.assert_shape(actual, (BATCH,))
        np.testing.assert_allclose(actual, (np.asarray(z) ** 2).sum(-1) / 2, rtol=1e-6)

    @variants
    def test_no_information_is_exactly_zero(self):
        z = normal(0, BATCH, DIM)
        actual = self.variant(objectives.lower_bound)(z, jnp.zeros_like(z))
        np.testing.assert_array_equal(actual, np.zeros(BATCH))

    def test_is_the_likelihood_plus_the_entropy(self):
        """E[log q(z|x)] + H(z) with H(z) = (z/2) log(2 pi e), for zhat = z + noise."""
        z = normal(0, 200_000, DIM)
        z_mean = z + 0.5 * normal(1, 200_000, DIM)
        entropy = DIM / 2 * np.log(2 * np.pi * np.e)
        expected = -DIM / 2 * np.log(2 * np.pi) - DIM * 0.25 / 2 + entropy
        actual = jnp.mean(objectives.lower_bound(z, z_mean))
        np.testing.assert_allclose(actual, expected, atol=0.015)


class AdversarialTest(chex.TestCase):
    @variants
    def test_labels_one_and_zero(self):
        logits = jnp.asarray([-4.0, -0.5, 0.0, 1.0, 6.0])
        loss = self.variant(objectives.adversarial)
        sigmoid = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        chex.assert_shape(loss(logits, 1.0), (5,))
        np.testing.assert_allclose(loss(logits, 1.0), -np.log(sigmoid), rtol=2e-6)
        np.testing.assert_allclose(loss(logits, 0.0), -np.log(1 - sigmoid), rtol=2e-6)

    @variants
    def test_a_label_for_each_example(self):
        logits, labels = normal(0, 5), jnp.asarray([0.0, 0.7, 0.9, 1.0, 1.2])
        sigmoid = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
        expected = -labels * np.log(sigmoid) - (1 - labels) * np.log(1 - sigmoid)
        actual = self.variant(objectives.adversarial)(logits, labels)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

    @variants
    def test_saturated_logits_stay_finite(self):
        logits = jnp.asarray([-1e4, 1e4])
        loss = self.variant(objectives.adversarial)
        np.testing.assert_allclose(loss(logits, 1.0), [1e4, 0.0])
        np.testing.assert_allclose(loss(logits, 0.0), [0.0, 1e4])


class InstanceNoiseTest(chex.TestCase):
    def noisy(self, images, level):
        level = jnp.asarray(level, jnp.float32)
        return self.variant(objectives.instance_noise)(jax.random.key(0), images, level)

    @variants
    def test_level_zero_changes_nothing(self):
        images = jnp.linspace(-1.0, 1.0, BATCH * 8 * 8).reshape(BATCH, 8, 8, 1)
        actual = self.noisy(images, 0.0)
        chex.assert_equal_shape([actual, images])
        np.testing.assert_array_equal(actual, images)

    @variants
    @parameterized.parameters(0.1, 1.0, 10.0)
    def test_stays_in_range(self, level):
        images = jnp.broadcast_to(jnp.asarray([-1.0, 1.0]), (BATCH, 16, 16, 2))
        actual = np.asarray(self.noisy(images, level))
        assert actual.min() == -1.0 and actual.max() == 1.0
        # from an edge, half of the draws are cut off there, and a few at the other edge
        expected = 0.5 + stats.norm.cdf(-2.0 / level)
        np.testing.assert_allclose(np.mean(np.abs(actual) == 1.0), expected, atol=0.03)

    @variants
    def test_statistics_before_clipping_bites(self):
        noise = np.asarray(self.noisy(jnp.full((8, 64, 64, 1), 0.25), 0.1)) - 0.25
        np.testing.assert_allclose(noise.mean(), 0.0, atol=3e-3)
        np.testing.assert_allclose(noise.std(), 0.1, atol=2e-3)
        assert stats.kstest(noise.ravel() / 0.1, "norm").pvalue > 1e-3

    @variants
    def test_statistics_of_clipped_noise(self):
        """At level 1 on grey images: the mass at the edges is 2 Phi(-1)."""
        noise = np.asarray(self.noisy(jnp.zeros((8, 64, 64, 1)), 1.0))
        edges = 2 * stats.norm.cdf(-1.0)
        np.testing.assert_allclose(np.mean(np.abs(noise) == 1.0), edges, atol=0.01)

    @variants
    def test_pixels_and_examples_differ(self):
        noise = np.asarray(self.noisy(jnp.zeros((2, 32, 32, 3)), 0.1)).reshape(-1)
        assert len(np.unique(noise)) > 0.99 * noise.size


class ReparametriseTest(chex.TestCase):
    @variants
    def test_moments(self):
        mean, log_variance = jnp.asarray([0.0, 2.0, -5.0]), jnp.asarray([0.0, -2.0, 1.0])
        draws = self.variant(objectives.reparametrise)(
            jax.random.key(1),
            jnp.broadcast_to(mean, (100_000, 3)),
            jnp.broadcast_to(log_variance, (100_000, 3)),
        )
        chex.assert_shape(draws, (100_000, 3))
        sigma = np.exp(np.asarray(log_variance) / 2)
        np.testing.assert_allclose((draws.mean(0) - mean) / sigma, 0.0, atol=0.015)
        np.testing.assert_allclose(draws.std(0) / sigma, 1.0, atol=0.01)
        np.testing.assert_allclose(np.corrcoef(draws.T) - np.eye(3), 0.0, atol=0.015)

    @variants
    def test_gradient_reaches_mean_and_log_variance(self):
        mean, log_variance, key = normal(0, BATCH, DIM), normal(1, BATCH, DIM), jax.random.key(2)

        def total(mean, log_variance):
            return objectives.reparametrise(key, mean, log_variance).sum()

        r = objectives.reparametrise(key, mean, log_variance)
        to_mean, to_log_variance = self.variant(jax.grad(total, (0, 1)))(mean, log_variance)
        np.testing.assert_allclose(to_mean, 1.0)
        np.testing.assert_allclose(to_log_variance, (r - mean) / 2, rtol=1e-4, atol=1e-6)
