"""The FactorVAE score on codes whose score is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import factor_vae, factor_vae_score

SIZES = (3, 6, 40, 32, 32)
CHANCE = 1 / len(SIZES)


class FactorsAsImages:
    """A dataset whose images are the factors themselves, so that codes can be any function."""

    name = "factors"
    factor_names = ("shape", "scale", "orientation", "x", "y")
    factor_sizes = SIZES

    def images(self, factors):
        scaled = jnp.asarray(factors, jnp.float32) / (np.asarray(SIZES) - 1)
        return scaled[:, None, None, :]


def score(codes_of, seed=0):
    return factor_vae_score(
        lambda images: codes_of(images[:, 0, 0, :]), FactorsAsImages(), jax.random.key(seed)
    )


def spread(factors):
    """The ideal code: one dimension a factor, all of variance well above the pruning threshold."""
    return 4.0 * factors


def test_ideal_codes_score_one():
    result = score(spread)
    assert result.value == 1.0
    assert result.interval == (1.0, 1.0)
    # Each dimension is chosen for its own factor alone, and every vote is counted.
    assert (result.votes == np.diag(np.diag(result.votes))).all()
    assert result.votes.sum() == 800
    assert result.active == (0, 1, 2, 3, 4)


def test_permuting_and_scaling_dimensions_changes_nothing():
    order, scales = np.array([3, 0, 4, 1, 2]), np.array([2.0, -7.0, 1.0, 30.0, 5.0])
    noisy = lambda f: spread(f) + 0.5 * jnp.sin(57.0 * f.sum(-1, keepdims=True))  # noqa: E731
    plain = score(noisy)
    changed = score(lambda f: (noisy(f) * scales)[:, order])
    assert changed.value == plain.value
    assert (changed.votes == plain.votes[order]).all()


def test_duplicated_dimensions_do_not_lower_the_score():
    assert score(lambda f: jnp.concatenate([spread(f), spread(f)], -1)).value == 1.0


def test_constant_codes_score_zero_and_have_no_active_dimension():
    result = score(lambda f: jnp.ones((len(f), 4)))
    assert result.value == 0.0
    assert result.active == ()
    assert result.votes.sum() == 0


def test_random_codes_score_near_chance():
    """Each of d dimensions takes its luckiest factor, so chance is exceeded by sampling alone."""
    draws = iter(jax.random.split(jax.random.key(5), 1000))
    result = score(lambda f: 3.0 * jax.random.normal(next(draws), (len(f), 5)))
    # 800 votes in 25 cells of 32 each: a dimension's largest of five cells is about 1.16 standard
    # deviations (sqrt(32) = 5.7) above the mean.
    expected = CHANCE * (1 + 1.16 * 5.7 / 32)
    assert abs(result.value - expected) < 0.035


def test_three_ideal_dimensions_of_five_score_between_three_fifths_and_one():
    """Votes for the two factors without a dimension fall on others: 3/5 at least of all votes."""
    result = score(lambda f: spread(f)[:, 2:])
    by_factor = result.votes.sum(axis=0)
    assert result.value >= by_factor[2:].sum() / 800
    assert result.value < 0.8


def test_a_rotated_pair_is_worse_than_the_ideal():
    def rotated(f):
        f = spread(f)
        x, y = f[:, 3], f[:, 4]
        return jnp.concatenate([f[:, :3], jnp.stack([x + y, x - y], -1)], -1)

    result = score(rotated)
    assert result.value < 0.95
    # What is not rotated stays ideal.
    assert result.votes[0, 0] == result.votes[:, 0].sum()


def test_a_pruned_dimension_is_never_chosen():
    """A dimension that hardly moves has the least variance of all, whatever factor is held."""
    quiet = score(lambda f: jnp.concatenate([spread(f), 1e-3 * f[:, :1]], -1))
    assert quiet.value == 1.0
    assert quiet.votes[5].sum() == 0
    assert 5 not in quiet.active


def test_the_threshold_is_on_the_variance():
    """A uniform code of width w has variance w^2 / 12: 0.05 lies at w = 0.775."""
    widths = np.array([0.70, 0.85])
    result = score(lambda f: jnp.concatenate([spread(f), f[:, 3:] * widths], -1))
    assert result.active == (0, 1, 2, 3, 4, 6)


def test_variances_are_those_of_the_data_set():
    result = score(lambda f: f * 4.0)
    exact = [16 * np.var(np.arange(n) / (n - 1)) for n in SIZES]
    np.testing.assert_allclose(result.variances, exact, rtol=0.05)


def test_the_key_alone_decides():
    noisy = lambda f: spread(f) + jnp.sin(91.0 * f.sum(-1, keepdims=True))  # noqa: E731
    assert (score(noisy, 1).votes == score(noisy, 1).votes).all()
    assert (score(noisy, 1).votes != score(noisy, 2).votes).any()


def test_the_interval_holds_the_value():
    draws = iter(jax.random.split(jax.random.key(5), 1000))
    result = score(lambda f: spread(f) + 4.0 * jax.random.normal(next(draws), f.shape))
    low, high = result.interval
    assert 0 < low <= result.value <= high < 1
    # Bootstrap of an accuracy p over 800 votes: about 2 * 1.96 * sqrt(p (1 - p) / 800) wide.
    p = result.value
    assert 0.6 < (high - low) / (2 * 1.96 * np.sqrt(p * (1 - p) / 800)) < 1.6


def test_votes_share_exactly_the_fixed_factor():
    sizes = np.asarray(SIZES)
    fixed, factors = factor_vae.draw_votes(np.random.default_rng(0), sizes, 50, 20)
    same = (factors == factors[:, :1]).all(axis=1)
    assert same[np.arange(50), fixed].all()
    others = same.copy()
    others[np.arange(50), fixed] = False
    assert not others.any()
    assert (factors >= 0).all()
    assert (factors < sizes).all()
    assert set(fixed.tolist()) == set(range(5))


def test_the_record_is_plain_and_complete():
    record = score(spread).as_dict()
    assert record["protocol"] == "id_gan"
    assert record["settings"] == {
        "votes": 800,
        "samples": 100,
        "normaliser_samples": 10_000,
        "pruned_below": 0.05,
    }
    assert record["factor_names"] == FactorsAsImages.factor_names
    assert isinstance(record["votes"], list)
    assert float(score(spread)) == record["value"]


def test_unknown_protocols_and_bad_codes_are_named():
    with pytest.raises(UserError, match="id_gan"):
        factor_vae_score(lambda x: x, FactorsAsImages(), jax.random.key(0), protocol="mine")
    with pytest.raises(UserError, match="finite"):
        score(lambda f: f * jnp.nan)
