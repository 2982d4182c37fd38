"""Modularity of information that is worked by hand."""

import numpy as np
import pytest
from factor_codes import everything, ideal

from ibgan_jax.metrics import modularity_of
from ibgan_jax.metrics import mutual_information as mi
from ibgan_jax.metrics.modularity import modularity_by_dimension

EQUAL = np.ones(3)


def test_a_matrix_worked_by_hand():
    matrix = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    # 1 - 1 / (4 * 2); one factor only; all alike; no information at all.
    assert modularity_by_dimension(matrix, EQUAL).tolist() == [0.875, 1.0, 0.0, 0.0]


def test_a_factor_without_entropy_is_not_another_factor():
    matrix = np.array([[2.0, 1.0, 0.0]])
    assert modularity_by_dimension(matrix, np.array([1.0, 1.0, 0.0])).tolist() == [0.75]
    # With one factor there is nothing else to tell of.
    assert modularity_by_dimension(matrix, np.array([1.0, 0.0, 0.0])).tolist() == [1.0]


def test_ideal_and_duplicated_codes_score_one_and_constant_ones_zero():
    factors = everything(4, 5, 6)
    for codes in (ideal(factors), np.tile(ideal(factors), 2)):
        np.testing.assert_allclose(modularity_of(codes, factors).value, 1.0, atol=1e-9)
    assert modularity_of(np.ones((len(factors), 2)), factors).value == 0.0


def test_a_rotated_pair_tells_of_two_factors_alike():
    factors = everything(5, 5, 3)
    codes = np.stack([factors[:, 0] + factors[:, 1], factors[:, 0] - factors[:, 1]], -1)
    # Squares a^2, a^2, 0: 1 - a^2 / (2 a^2).
    np.testing.assert_allclose(modularity_of(codes, factors).value, 0.5, atol=1e-9)


def test_permuting_and_scaling_dimensions_changes_nothing():
    rng = np.random.default_rng(0)
    factors = rng.integers(0, (4, 5, 6), (3000, 3))
    codes = factors @ rng.normal(size=(3, 4)) + rng.normal(size=(3000, 4))
    plain = modularity_of(codes, factors)
    changed = modularity_of((codes * [3.0, -0.2, 50.0, 1.0])[:, [2, 3, 0, 1]], factors)
    np.testing.assert_allclose(changed.value, plain.value, atol=1e-12)
    assert plain.interval[0] < plain.value < plain.interval[1]


def test_the_interval_holds_what_far_more_images_say():
    rng = np.random.default_rng(1)
    mix = np.array([[1.0, 0.3], [0.2, 1.0]])

    def drawn(count):
        factors = rng.integers(0, 4, (count, 2))
        return factors @ mix + 0.3 * rng.normal(size=(count, 2)), factors

    result = modularity_of(*drawn(5000))
    codes, factors = drawn(200_000)
    truth = modularity_by_dimension(*mi.informations(mi.binned(codes, 20), factors)).mean()
    assert result.interval[0] < truth < result.interval[1]
    assert result.value == pytest.approx(truth, abs=0.02)
