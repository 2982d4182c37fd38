"""UDR on codes whose score is known, and rank correlation."""

import json

import numpy as np
import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import rank_correlation, udr

N, D = 400, 4
INFORMATIVE = np.ones((3, D))
# Columns of a Hadamard matrix: each rotated dimension holds as much of all four.
ROTATION = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def uncorrelated():
    """Codes [625, 4] whose dimensions have rank correlations and correlations of exactly 0."""
    grid = np.meshgrid(*[np.arange(-2.0, 3.0)] * D)
    return np.stack([axis.ravel() for axis in grid], axis=-1)


def turned(codes, order=(2, 0, 3, 1), signs=(-1, 1, -1, 1)):
    return codes[:, list(order)] * np.array(signs)


ALIKE = np.stack([uncorrelated(), turned(uncorrelated()), turned(uncorrelated(), (3, 2, 1, 0))])


def test_members_alike_but_for_order_and_sign_have_one():
    result = udr(ALIKE, INFORMATIVE)
    np.testing.assert_allclose(result.values, 1.0, atol=1e-12)
    np.testing.assert_allclose(result.pairs, 1.0, atol=1e-12)


def test_the_lasso_takes_its_penalty_from_members_alike():
    """Of standardised codes the weight that is 1 shrinks to 1 - 0.1, and 0.9^2 / 0.9 = 0.9."""
    result = udr(ALIKE, INFORMATIVE, "lasso")
    np.testing.assert_allclose(result.values, 0.9, atol=1e-6)


@pytest.mark.parametrize("protocol", ["spearman", "lasso"])
def test_a_rotated_member_is_the_lowest(protocol):
    codes = np.concatenate([ALIKE, [uncorrelated() @ ROTATION]])
    result = udr(codes, np.ones((4, D)), protocol)
    assert result.values[3] < 0.6 < 0.85 < result.values[:3].min()


def test_unrelated_codes_are_near_the_floor():
    """|r| of 400 pairs is about 0.05 at most 0.1: r^2 / sum is some 0.1^2 / (4 * 0.04)."""
    assert udr(normal(3, N, D), INFORMATIVE).values.max() < 0.12
    # The Lasso drops every weight below its penalty, and with them the whole score.
    assert udr(normal(3, N, D), INFORMATIVE, "lasso").values.max() < 0.05


def test_a_pair_worked_by_hand():
    """R = [[1, 0.8], [0.8, 1]]: ranks of 4 images of which two neighbours change places.

    Each of four sums is 1 / 1.8, over d_a + d_b = 4.
    """
    one, other = [1.0, 2, 3, 4], [1.0, 3, 2, 4]
    codes = np.array([np.transpose([one, other]), np.transpose([other, one])])
    result = udr(codes, np.ones((2, 2)))
    np.testing.assert_allclose(result.pairs, 1 / 1.8, rtol=1e-12)
    # With one of a's dimensions left out, R = [[1, 0.8]] or so: the columns' sums are 1 and 0.8,
    # the row's is 1 / 1.8, over d_a + d_b = 3.
    result = udr(codes, [[1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(result.pairs[0, 1], (1 + 0.8 + 1 / 1.8) / 3, rtol=1e-12)
    np.testing.assert_allclose(result.pairs[1, 0], result.pairs[0, 1], rtol=1e-12)


def test_a_value_is_the_median_over_the_others():
    codes = 0.7 * normal(1, N, D) + normal(5, N, D, seed=1) * np.linspace(0.1, 1, 5)[:, None, None]
    result = udr(codes, np.ones((5, D)))
    for i in range(5):
        expected = np.median(np.delete(result.pairs[i], i))
        np.testing.assert_allclose(result.values[i], expected, rtol=1e-12)
    assert len(set(result.values.tolist())) > 2
    assert result.best == int(np.argmax(result.values))


def noisy():
    return normal(1, N, D) + 0.8 * normal(3, N, D, seed=1)


@pytest.mark.parametrize("protocol", ["spearman", "lasso"])
def test_permuting_one_members_dimensions_changes_nothing(protocol):
    codes = noisy()
    changed = codes.copy()
    changed[1] = turned(codes[1])
    np.testing.assert_allclose(
        udr(changed, INFORMATIVE, protocol).pairs,
        udr(codes, INFORMATIVE, protocol).pairs,
        rtol=1e-4,
    )


def test_ranks_do_not_see_a_monotone_scale():
    codes = noisy()
    changed = codes.copy()
    changed[1], changed[2, :, 0] = np.exp(3 * codes[1]), -7 * codes[2, :, 0] ** 3
    np.testing.assert_allclose(
        udr(changed, INFORMATIVE).pairs, udr(codes, INFORMATIVE).pairs, rtol=1e-9
    )


def test_the_lasso_does_not_see_a_linear_scale():
    codes = noisy()
    changed = codes * np.array([1.0, 1e-3, 1e3])[:, None, None] + 5.0
    np.testing.assert_allclose(
        udr(changed, INFORMATIVE, "lasso").pairs,
        udr(codes, INFORMATIVE, "lasso").pairs,
        rtol=1e-4,
    )


@pytest.mark.parametrize("protocol", ["spearman", "lasso"])
def test_uninformative_dimensions_never_count(protocol):
    """They copy another dimension, and so would lower every score, or are pure noise."""
    codes = noisy()
    extra = np.stack([codes[0, :, :2], normal(N, 2, seed=7), codes[2, :, 2:]])
    nats = np.concatenate([INFORMATIVE, np.full((3, 2), 0.01)], axis=1)
    padded = np.concatenate([codes, extra], axis=-1)
    expected = udr(codes, INFORMATIVE, protocol).pairs
    np.testing.assert_allclose(udr(padded, nats, protocol).pairs, expected, rtol=1e-9)
    # Above the threshold they do count.
    counted = udr(padded, nats + 0.001, protocol)
    others = ~np.eye(3, dtype=bool)
    assert np.abs(counted.pairs - expected)[others].min() > 0.005
    assert counted.details["informative"].all()


@pytest.mark.parametrize("protocol", ["spearman", "lasso"])
def test_a_member_that_tells_nothing_has_zero(protocol):
    nats = INFORMATIVE.copy()
    nats[1] = 0.0
    result = udr(ALIKE, nats, protocol)
    assert result.values[1] == 0.0
    assert (result.pairs[1] == 0).all()
    assert (result.pairs[:, 1] == 0).all()
    assert result.pairs[0, 2] > 0.8
    assert (udr(ALIKE, 0 * nats, protocol).values == 0).all()


@pytest.mark.parametrize("protocol", ["spearman", "lasso"])
def test_a_constant_dimension_adds_nothing_but_is_counted(protocol):
    codes = ALIKE.copy()
    codes[0, :, 0] = 0.0
    codes[1:, :, 0] = 0.1  # its deviation is 0 or a rounding error
    result = udr(codes, INFORMATIVE, protocol)
    assert np.isfinite(result.pairs).all()
    # Members 0 and 1 lost the dimensions 0 and 2 of the same code: 2 of 4 are left in common.
    expected = 2 / 4 * (1.0 if protocol == "spearman" else 0.9)
    np.testing.assert_allclose(result.pairs[0, 1], expected, atol=1e-6)


def test_the_record_is_plain_and_complete():
    record = json.loads(json.dumps(udr(ALIKE, INFORMATIVE, "lasso").as_dict(), allow_nan=False))
    assert (record["metric"], record["protocol"]) == ("udr", "lasso")
    assert record["settings"] == {"threshold": 0.01, "penalty": 0.1}
    assert len(record["values"]) == 3
    assert np.shape(record["pairs"]) == (3, 3)
    assert np.shape(record["informative"]) == (3, D)
    assert record["key"] is None
    assert record["best"] in range(3)
    assert "details" not in record


@pytest.mark.parametrize(
    ("codes", "nats", "protocol", "words"),
    [
        (ALIKE, INFORMATIVE, "mine", "spearman, lasso"),
        (ALIKE[:1], INFORMATIVE[:1], "spearman", "two or more"),
        (ALIKE[0], INFORMATIVE, "spearman", r"\[M, N, d\]"),
        (ALIKE[:, :1], INFORMATIVE, "spearman", "two images"),
        (ALIKE[:, :, :0], INFORMATIVE, "spearman", r"\[M, N, d\]"),
        ([[[1.0, 2.0]], [[1.0]]], INFORMATIVE, "spearman", "array"),
        (ALIKE, INFORMATIVE[:2], "spearman", r"nats must be \[3, 4\]"),
        (ALIKE, INFORMATIVE[0], "spearman", r"nats must be \[M, d\]"),
        (ALIKE * np.nan, INFORMATIVE, "spearman", "codes must be finite"),
        (ALIKE, INFORMATIVE * np.inf, "spearman", "nats must be finite"),
    ],
)
def test_mistakes_are_named_in_one_line(codes, nats, protocol, words):
    with pytest.raises(UserError, match=words) as error:
        udr(codes, nats, protocol)
    assert "\n" not in str(error.value)


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 1e9]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    # 1 - 6 * (1 + 1) / (4 * 15)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    # Equals share a rank: (1.5, 1.5, 3) against (1, 2, 3).
    assert rank_correlation([1, 1, 2], [1, 2, 3]) == pytest.approx(np.sqrt(3) / 2)


def test_rank_correlation_where_there_is_none():
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1], [1]) is None
    assert rank_correlation([], []) is None
    assert rank_correlation([1, None, 3, 4], [1, 2, 3, np.nan]) == pytest.approx(1.0)
    assert rank_correlation([None, None], [1, 2]) is None
    for a, b in [([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]]), (["a", "b"], [1, 2])]:
        with pytest.raises(UserError, match="two rows"):
            rank_correlation(a, b)
