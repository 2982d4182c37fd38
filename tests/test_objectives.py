"""Densities, divergences and losses against closed forms and integrals, with and without jit."""

from functools import partial

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


class MovedTest(chex.TestCase):
    def moved(self, images, shift, zoom):
        return self.variant(partial(objectives.moved, shift=shift, zoom=zoom))(
            jax.random.key(0), images
        )

    @variants
    def test_nothing_moves(self):
        images = normal(0, BATCH, 9, 6, 2)
        np.testing.assert_array_equal(self.moved(images, (0.0, 0.0), 0.0), images)

    @variants
    def test_one_colour_stays(self):
        images = jnp.broadcast_to(jnp.asarray([-0.5, 1.0]), (BATCH, 8, 12, 2))
        np.testing.assert_array_equal(self.moved(images, (5.0, 5.0), 0.5), images)

    @variants
    def test_a_square_moves_and_grows_as_much_as_asked(self):
        """Its centre by N(0, shift^2) pixels, its side exp(N(0, zoom^2)) times, independently."""
        count = 2000
        image = np.full((1, 64, 48, 1), -1.0, np.float32)
        image[:, 14:34, 16:36] = 1.0  # 20 x 20 pixels, not in the middle of the image
        images = jnp.broadcast_to(image, (count, *image.shape[1:]))
        mass = (np.asarray(self.moved(images, (3.0, 1.5), 0.1))[..., 0] + 1) / 2
        assert set(np.unique(mass)) == {0.0, 1.0}  # nothing is blurred
        area = mass.sum((1, 2))
        down = (mass.sum(2) @ np.arange(64)) / area - 23.5
        right = (mass.sum(1) @ np.arange(48)) / area - 25.5
        grown = np.log(area / 400) / 2
        for seen, spread in ((down, 3.0), (right, 1.5), (grown, 0.1)):
            np.testing.assert_allclose(np.mean(seen), 0.0, atol=4 * spread / np.sqrt(count))
            np.testing.assert_allclose(np.std(seen), spread, rtol=0.08)
        off_diagonal = np.corrcoef([down, right, grown]) - np.eye(3)
        np.testing.assert_allclose(off_diagonal, 0.0, atol=4 / np.sqrt(count))

    @variants
    def test_a_black_image_stays_black(self):
        images = -jnp.ones((BATCH, 8, 8, 1))
        np.testing.assert_array_equal(self.moved(images, (2.0, 2.0), 0.5), images)


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


class TotalCorrelationTest(chex.TestCase):
    @variants
    @parameterized.parameters("weighted", "stratified")
    def test_of_one_posterior_for_all_examples(self, estimator):
        """Its dimensions are independent; the weighted estimate is off by (d - 1) log N exactly."""
        size = 1000
        mean, log_variance = jnp.tile(normal(0, 1, DIM), (BATCH, 1)), jnp.full((BATCH, DIM), -0.4)
        z = normal(1, BATCH, DIM)
        made = self.variant(objectives.total_correlation, static_argnums=(3, 4))(
            z, mean, log_variance, size, estimator
        )
        chex.assert_shape(made, (BATCH,))
        expected = {"weighted": (DIM - 1) * np.log(size), "stratified": 0.0}[estimator]
        np.testing.assert_allclose(made, np.full(BATCH, expected), rtol=1e-6, atol=2e-5)

    @parameterized.parameters(1, 2)
    def test_of_one_dimension_is_zero(self, seed):
        z, mean = normal(seed, 50, 1), normal(seed + 10, 50, 1)
        for estimator in ("weighted", "stratified"):
            made = objectives.total_correlation(z, mean, jnp.zeros((50, 1)), 99, estimator)
            np.testing.assert_allclose(made, np.zeros(50), atol=1e-5)

    def test_of_correlated_gaussians_approaches_the_closed_form(self):
        """q(z) = N(0, C + s^2): TC = -1/2 log(1 - rho^2), with the whole data set as one batch."""
        count, rho, noise = 3000, 0.8, 0.5
        mean = np.random.default_rng(0).multivariate_normal([0, 0], [[1, rho], [rho, 1]], count)
        log_variance = np.full((count, 2), 2 * np.log(noise))
        z = mean + noise * np.random.default_rng(1).normal(size=mean.shape)
        made = objectives.total_correlation(
            jnp.asarray(z), jnp.asarray(mean), jnp.asarray(log_variance), count, "stratified"
        )
        total = rho / (1 + noise**2)
        assert abs(float(jnp.mean(made)) + 0.5 * np.log(1 - total**2)) < 0.02
        # Weighted, log q(z) and each log q(z_j) are too low by log N: d - 1 of them remain.
        weighted = objectives.total_correlation(
            jnp.asarray(z), jnp.asarray(mean), jnp.asarray(log_variance), count, "weighted"
        )
        np.testing.assert_allclose(weighted - np.log(count), made, atol=0.05)

    @parameterized.parameters((2, 10), (6, 6), (64, 737_280))
    def test_stratified_weights_are_a_distribution(self, batch, size):
        weights = np.exp(objectives.log_importance_weights(batch, size, "stratified"))
        np.testing.assert_allclose(weights.sum(axis=1), np.ones(batch), rtol=1e-5)
        np.testing.assert_allclose(np.diag(weights), np.full(batch, 1 / size), rtol=1e-5)


class DensityTest(chex.TestCase):
    @variants
    def test_gaussian_log_density(self):
        x, mean, log_variance = normal(0, BATCH, DIM), normal(1, BATCH, DIM), normal(2, BATCH, DIM)
        made = self.variant(objectives.gaussian_log_density)(x, mean, log_variance)
        expected = stats.norm(mean, np.exp(np.asarray(log_variance) / 2)).logpdf(x)
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)

    @variants
    def test_bernoulli_reconstruction(self):
        logits = normal(0, 2, 4, 4, 1)
        images = jnp.asarray(np.random.default_rng(1).integers(0, 2, (2, 4, 4, 1)), jnp.float32)
        made = self.variant(objectives.bernoulli_reconstruction)(images, logits)
        chex.assert_shape(made, (2,))
        p = 1 / (1 + np.exp(-np.asarray(logits)))
        expected = -stats.bernoulli(p).logpmf(np.asarray(images, int)).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(made, expected, rtol=1e-5)


class PermutationTest(chex.TestCase):
    @variants
    def test_every_dimension_is_permuted_by_itself(self):
        z = normal(0, 200, 3)
        made = self.variant(objectives.permute_dimensions)(jax.random.key(0), z)
        np.testing.assert_array_equal(np.sort(made, axis=0), np.sort(z, axis=0))
        moved = np.argsort(np.argsort(np.asarray(made), axis=0), axis=0)
        assert len({tuple(column) for column in moved.T}) == 3
        correlated = jnp.concatenate([z, z], axis=1)
        apart = objectives.permute_dimensions(jax.random.key(1), correlated)
        assert abs(np.corrcoef(apart[:, 0], apart[:, 3])[0, 1]) < 0.3
