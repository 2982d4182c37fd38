"""The mutual information gap where information is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_codes import FactorsAsImages, everything, ideal, of_factors

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import mig, mig_of, posterior_mig_of
from ibgan_jax.metrics import mutual_information as mi


def drawn(count=4000, sizes=(4, 5, 6)):
    return np.random.default_rng(3).integers(0, sizes, (count, len(sizes)))


def test_information_worked_by_hand():
    """One code of four images tells of a factor that is 0 once: H(v) - H(v|z)."""
    codes = np.array([[0.0], [0.0], [1.0], [1.0]])
    factors = np.array([[0], [1], [1], [1]])
    result = mig_of(codes, factors)
    entropy = 0.25 * np.log(4) + 0.75 * np.log(4 / 3)
    information = entropy - 0.5 * np.log(2)
    np.testing.assert_allclose(result.details["mutual_information"], [[information]], atol=1e-12)
    np.testing.assert_allclose(result.details["entropies"], [entropy], atol=1e-12)
    # There is no other dimension.
    np.testing.assert_allclose(result.value, information / entropy, atol=1e-12)


def test_information_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    factors = drawn()
    codes = factors @ rng.normal(size=(3, 4)) + rng.normal(size=(4000, 4))
    matrix, entropies = mi.informations(mi.binned(codes, 20), mi.numbered(factors))
    for j, k in np.ndindex(4, 3):
        bins = np.digitize(codes[:, j], np.histogram(codes[:, j], 20)[1][:-1])
        known = metrics.mutual_info_score(factors[:, k], bins)
        np.testing.assert_allclose(matrix[j, k], known, atol=1e-9)
        known = metrics.mutual_info_score(factors[:, k], factors[:, k])
        np.testing.assert_allclose(entropies[k], known, atol=1e-9)


def test_bins_have_equal_widths_and_hold_their_left_edges():
    codes = np.array([[0.0], [0.249], [0.25], [0.5], [0.74], [1.0]])
    assert mi.binned(codes, 4)[:, 0].tolist() == [0, 0, 1, 2, 2, 3]
    assert np.ptp(mi.binned(np.ones((5, 1)), 20)) == 0


def test_a_noisy_channel_between_bits():
    """A bit that is flipped with probability e tells log 2 - H(e); the next one is worse."""
    rng = np.random.default_rng(1)
    bit = rng.integers(0, 2, 10_000)
    flipped = [(bit ^ (rng.random(10_000) < e)).astype(float) for e in (0.05, 0.2)]
    result = mig_of(np.stack(flipped, -1), bit[:, None])
    rest = [-e * np.log(e) - (1 - e) * np.log(1 - e) for e in (0.05, 0.2)]
    low, high = result.interval
    assert low < (rest[1] - rest[0]) / np.log(2) < high
    assert low < result.value < high < low + 0.06


def test_ideal_codes_score_one():
    result = mig_of(ideal(drawn()), drawn())
    np.testing.assert_allclose(result.value, 1 - _chance(drawn()), atol=1e-6)
    # Over all combinations chance tells nothing.
    factors = everything(4, 5, 6)
    np.testing.assert_allclose(mig_of(ideal(factors), factors).value, 1.0, atol=1e-12)


def _chance(factors):
    """What the two other factors' values tell of each factor by chance alone, as a share of it."""
    metrics = pytest.importorskip("sklearn.metrics")
    shares = []
    for k in range(3):
        others = [
            metrics.mutual_info_score(factors[:, k], factors[:, j]) for j in range(3) if j != k
        ]
        shares.append(max(others) / metrics.mutual_info_score(factors[:, k], factors[:, k]))
    return np.mean(shares)


def test_duplicated_and_constant_codes_score_zero():
    factors = everything(4, 5, 6)
    assert mig_of(np.tile(ideal(factors), 2), factors).value == 0.0
    assert mig_of(np.ones((len(factors), 3)), factors).value == 0.0


def test_random_codes_score_almost_nothing():
    codes = np.random.default_rng(0).normal(size=(4000, 5))
    assert mig_of(codes, drawn()).value < 0.01


def test_a_rotated_pair_is_worse_than_the_ideal():
    factors = everything(4, 5, 5)
    codes = np.stack(
        [factors[:, 0], factors[:, 1] + factors[:, 2], factors[:, 1] - factors[:, 2]], -1
    )
    # Sum and difference tell as much of either factor; what is not rotated stays ideal.
    np.testing.assert_allclose(mig_of(codes, factors).value, 1 / 3, atol=1e-12)


def test_permuting_and_scaling_dimensions_changes_nothing():
    factors = drawn()
    codes = factors + np.random.default_rng(2).normal(size=factors.shape)
    plain = mig_of(codes, factors)
    changed = mig_of((codes * [3.0, -0.2, 50.0])[:, [2, 0, 1]], factors)
    np.testing.assert_allclose(changed.value, plain.value, atol=1e-12)
    np.testing.assert_allclose(
        changed.details["mutual_information"],
        plain.details["mutual_information"][[2, 0, 1]],
        atol=1e-12,
    )


def test_a_factor_with_one_value_is_left_out():
    factors = drawn()
    codes = factors + np.random.default_rng(2).normal(size=factors.shape)
    more = np.concatenate([factors, np.zeros((len(factors), 1), int)], -1)
    assert mig_of(codes, more).value == mig_of(codes, factors).value
    assert mig_of(codes, more).details["mutual_information"][:, 3].tolist() == [0, 0, 0]


def two_bumps(distance, deviation):
    """I(z; v) in nats of z ~ N(+-distance, deviation^2) by quadrature, v a fair bit."""
    z = np.linspace(-distance - 12 * deviation, distance + 12 * deviation, 200_001)

    def density(mean):
        return np.exp(-0.5 * ((z - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))

    one, other = density(distance), density(-distance)
    ratio = np.log(2 * one / (one + other + 1e-300) + 1e-300)
    return float(np.sum(one * ratio) * (z[1] - z[0]))


def test_posteriors_with_information_known_by_quadrature():
    """Dimension 0 tells of bit 0, dimension 1 less of it, dimension 2 of bit 1."""
    bits = np.random.default_rng(0).integers(0, 2, (3000, 2))
    sign = 2.0 * bits - 1
    means = np.stack([sign[:, 0], 0.5 * sign[:, 0], 2.0 * sign[:, 1]], -1)
    deviations = np.array([0.7, 1.0, 1.5])
    log_variances = np.broadcast_to(2 * np.log(deviations), means.shape)
    known = [two_bumps(m, s) for m, s in zip((1.0, 0.5, 2.0), deviations, strict=True)]
    result = posterior_mig_of(means, log_variances, bits)
    low, high = result.interval
    assert low < ((known[0] - known[1]) + known[2]) / 2 / np.log(2) < high < low + 0.06
    matrix = result.details["mutual_information"]
    np.testing.assert_allclose([matrix[0, 0], matrix[1, 0], matrix[2, 1]], known, atol=0.03)
    np.testing.assert_allclose([matrix[0, 1], matrix[2, 0]], 0.0, atol=0.01)


def test_posteriors_far_apart_score_one_and_equal_ones_zero():
    factors = everything(3, 4, times=20)
    narrow = np.full(factors.shape, -6.0)
    ideal_score = posterior_mig_of(10.0 * factors, narrow, factors)
    np.testing.assert_allclose(ideal_score.value, 1.0, atol=1e-6)
    np.testing.assert_allclose(ideal_score.interval, 1.0, atol=1e-6)
    assert posterior_mig_of(0.0 * factors, narrow, factors).value < 1e-6
    twice = posterior_mig_of(np.tile(10.0 * factors, 2), np.tile(narrow, 2), factors)
    np.testing.assert_allclose(twice.value, 0.0, atol=1e-6)


def test_posterior_and_binned_protocols_on_a_dataset():
    dataset = FactorsAsImages((3, 4, 5))
    key = jax.random.key(0)
    codes_of = of_factors(lambda f: 40.0 * f)
    binned = mig(codes_of, dataset, key)
    assert binned.settings == {"images": 10_000, "bins": 20}
    assert 0.99 < binned.value <= 1.0
    posterior = mig(
        None,
        FactorsAsImages((3, 4, 5)),
        key,
        "chen2018",
        posterior_of=lambda images: (codes_of(images), jnp.full((len(images), 3), -2.0)),
    )
    assert posterior.protocol == "chen2018"
    assert 0.99 < posterior.value <= 1.0
    with pytest.raises(UserError, match="posterior_of"):
        mig(codes_of, dataset, key, "chen2018")


def test_a_resample_is_its_images_counted_as_often_as_they_were_drawn():
    rng = np.random.default_rng(3)
    codes, factors = rng.normal(size=(300, 3)), rng.integers(0, (2, 5), (300, 2))
    bins, labels = mi.binned(codes, 7), mi.numbered(factors)
    counted = []
    mi.resampled(
        lambda *given: counted.append(given) or 0.5, 0.5, bins, labels, np.random.default_rng(8)
    )
    draws = np.random.default_rng(8).multinomial(300, np.full(300, 1 / 300), mi.RESAMPLES)
    assert len(counted) == mi.RESAMPLES
    for given, often in zip(counted[:5], draws, strict=False):
        rows = np.repeat(np.arange(300), often)
        for one, other in zip(given, mi.informations(bins[rows], labels[rows]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-15)
