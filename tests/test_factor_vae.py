"""The FactorVAE score on codes whose score is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_codes import FactorsAsImages, ideal, of_factors

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import factor_vae, factor_vae_of, factor_vae_score

SIZES = (3, 6, 40, 32, 32)
CHANCE = 1 / len(SIZES)


def score(function, seed=0, protocol="id_gan", sizes=SIZES):
    return factor_vae_score(
        of_factors(function), FactorsAsImages(sizes), jax.random.key(seed), protocol
    )


def test_ideal_codes_score_one():
    result = score(ideal)
    assert result.value == 1.0
    assert result.interval == (1.0, 1.0)
    # Each dimension is chosen for its own factor alone, and every vote is counted.
    assert (result.votes == np.diag(np.diag(result.votes))).all()
    assert result.votes.sum() == 800
    assert result.active == (0, 1, 2, 3, 4)


def test_permuting_and_scaling_dimensions_changes_nothing():
    order, scales = np.array([3, 0, 4, 1, 2]), np.array([2.0, -7.0, 1.0, 30.0, 5.0])
    noisy = lambda f: ideal(f) + 0.5 * jnp.sin(57.0 * f.sum(-1, keepdims=True))  # noqa: E731
    plain = score(noisy)
    changed = score(lambda f: (noisy(f) * scales)[:, order])
    assert changed.value == plain.value
    assert (changed.votes == plain.votes[order]).all()


def test_duplicated_dimensions_do_not_lower_the_score():
    assert score(lambda f: jnp.concatenate([ideal(f), ideal(f)], -1)).value == 1.0


def test_constant_codes_score_zero_and_have_no_active_dimension():
    result = score(lambda f: jnp.ones((len(f), 4)))
    assert result.value == 0.0
    assert result.active == ()
    assert result.votes.sum() == 0


def test_random_codes_score_near_chance():
    """Each of d dimensions takes its luckiest factor, so chance is exceeded by sampling alone."""
    draws = iter(jax.random.split(jax.random.key(5), 5_000))
    result = score(lambda f: 3.0 * jax.random.normal(next(draws), (len(f), 5)))
    # 800 votes in 25 cells of 32 each: a dimension's largest of five cells is about 1.16 standard
    # deviations (sqrt(32) = 5.7) above the mean.
    expected = CHANCE * (1 + 1.16 * 5.7 / 32)
    assert abs(result.value - expected) < 0.035


def test_three_ideal_dimensions_of_five_score_between_three_fifths_and_one():
    """Votes for the two factors without a dimension fall on others: 3/5 at least of all votes."""
    result = score(lambda f: ideal(f)[:, 2:])
    by_factor = result.votes.sum(axis=0)
    assert result.value >= by_factor[2:].sum() / 800
    assert result.value < 0.8


def test_a_rotated_pair_is_worse_than_the_ideal():
    def rotated(f):
        f = ideal(f)
        x, y = f[:, 3], f[:, 4]
        return jnp.concatenate([f[:, :3], jnp.stack([x + y, x - y], -1)], -1)

    result = score(rotated)
    assert result.value < 0.95
    # What is not rotated stays ideal.
    assert result.votes[0, 0] == result.votes[:, 0].sum()


def test_a_pruned_dimension_is_never_chosen():
    """A dimension that hardly moves has the least variance of all, whatever factor is held."""
    quiet = score(lambda f: jnp.concatenate([ideal(f), 1e-3 * f[:, :1]], -1))
    assert quiet.value == 1.0
    assert quiet.votes[5].sum() == 0
    assert 5 not in quiet.active


def test_the_threshold_is_on_the_variance():
    """A uniform code of width w has variance w^2 / 12: 0.05 lies at w = 0.775."""
    widths = np.array([0.70, 0.85])
    result = score(lambda f: jnp.concatenate([ideal(f), f[:, 3:] * widths], -1))
    assert result.active == (0, 1, 2, 3, 4, 6)


def test_variances_are_those_of_the_data_set():
    result = score(lambda f: f * 4.0)
    exact = [16 * np.var(np.arange(n) / (n - 1)) for n in SIZES]
    np.testing.assert_allclose(result.variances, exact, rtol=0.05)


def test_the_key_alone_decides():
    noisy = lambda f: ideal(f) + jnp.sin(91.0 * f.sum(-1, keepdims=True))  # noqa: E731
    assert (score(noisy, 1).votes == score(noisy, 1).votes).all()
    assert (score(noisy, 1).votes != score(noisy, 2).votes).any()


def test_the_interval_holds_the_value():
    draws = iter(jax.random.split(jax.random.key(5), 5_000))
    result = score(lambda f: ideal(f) + 4.0 * jax.random.normal(next(draws), f.shape))
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
    record = score(ideal).as_dict()
    assert record["protocol"] == "id_gan"
    assert record["settings"] == {
        "votes": 800,
        "samples": 100,
        "normaliser_samples": 10_000,
        "pruned_below": 0.05,
        "evaluation_votes": 0,
        "in_turn": False,
    }
    assert record["factor_names"] == FactorsAsImages().factor_names
    assert isinstance(record["votes"], list)
    assert len(record["variances"]) == 5
    assert record["active"] == (0, 1, 2, 3, 4)
    assert "details" not in record
    assert float(score(ideal)) == record["value"]


def test_unknown_protocols_and_bad_codes_are_named():
    with pytest.raises(UserError, match="id_gan"):
        score(ideal, protocol="mine")
    with pytest.raises(UserError, match="finite"):
        score(lambda f: f * jnp.nan)


def test_the_score_of_votes_worked_by_hand():
    """Three votes for dimension 0 (two of factor 0) and two for dimension 1 (one of each)."""
    local = np.array([[1.0, 4.0], [1.0, 8.0], [1.0, 8.0], [3.0, 4.0], [3.0, 4.0]])
    # By variances of 1 and 2 the ratios are (1, 2), (1, 4), (1, 4), (3, 2), (3, 2).
    result = factor_vae_of(local, np.array([0, 0, 1, 0, 1]), np.array([1.0, 2.0]), 2)
    assert result.details["votes"].tolist() == [[2, 1], [1, 1]]
    assert result.value == pytest.approx(3 / 5)
    assert result.interval[0] < 3 / 5 < result.interval[1]
    # Judged by others: dimension 0 is factor 0's, dimension 1 (a tie) the first factor's.
    judged = np.array([[1.0, 8.0], [3.0, 4.0]]), np.array([1, 0])
    result = factor_vae_of(local, np.array([0, 0, 1, 0, 1]), np.array([1.0, 2.0]), 2, judged=judged)
    assert result.value == 1 / 2
    assert result.details["train_accuracy"] == pytest.approx(3 / 5)


def test_disentanglement_lib_judges_by_votes_of_their_own():
    """Random codes are at chance there; only the votes that made the classifier flatter it."""
    draws = iter(jax.random.split(jax.random.key(5), 25_000))
    result = score(
        lambda f: jax.random.normal(next(draws), (len(f), 5)), protocol="disentanglement_lib"
    )
    assert result.votes.sum() == 10_000
    # 5,000 votes: the standard deviation of chance is 0.0057.
    assert abs(result.value - CHANCE) < 4 * 0.0057
    assert result.details["train_accuracy"] > result.value


def test_disentanglement_lib_prunes_by_the_standard_deviation():
    """A uniform code of width w has deviation w / sqrt(12): 0.05 lies at w = 0.173."""
    widths = np.array([0.165, 0.185])
    result = score(
        lambda f: jnp.concatenate([ideal(f), f[:, 3:] * widths], -1),
        protocol="disentanglement_lib",
    )
    assert result.active == (0, 1, 2, 3, 4, 6)
    assert result.value == 1.0


def test_infogan_cr_takes_factors_in_turn_and_prunes_nothing():
    quiet = lambda f: jnp.concatenate([ideal(f), 1e-3 * f[:, :1], 0 * f[:, :1]], -1)  # noqa: E731
    result = score(quiet, protocol="infogan_cr")
    assert result.value == 1.0
    assert result.votes.sum(axis=0).tolist() == [100] * 5
    # But for a dimension that never moves, whose normalised variance would be 0 / 0.
    assert result.active == (0, 1, 2, 3, 4, 5)
    exact = [16 * np.var(np.arange(n) / (n - 1)) for n in SIZES]
    # A tenth of the data set, 73,728 images.
    np.testing.assert_allclose(result.variances[:5], exact, rtol=0.015)


@pytest.mark.parametrize("protocol", factor_vae.PROTOCOLS)
def test_a_factor_with_one_value_is_never_the_fixed_one(protocol):
    result = score(lambda f: ideal(f)[:, 1:], sizes=(1, 6, 8), protocol=protocol)
    assert result.value == 1.0
    assert result.votes.sum(axis=0)[0] == 0
