"""SAP where accuracies are known."""

import numpy as np
import pytest
from factor_codes import everything

from ibgan_jax.metrics import sap_of

pytest.importorskip("sklearn")

# Every combination of two bits, as often in training as in judging.
BITS = everything(2, 2, times=100)
SIGNS = 4.0 * (2 * BITS - 1)


def test_ideal_codes_of_bits():
    """A bit's own dimension is always right, the other one half of the time."""
    result = sap_of(SIGNS, BITS, train=200)
    np.testing.assert_allclose(result.details["accuracies"], [[1.0, 0.5], [0.5, 1.0]], atol=1e-12)
    np.testing.assert_allclose(result.value, 0.5, atol=1e-12)
    low, high = result.interval
    # Bootstrap of an accuracy of 1/2 over 200 images has a deviation of 0.035; two are averaged,
    # and what is always right does not spread.
    assert low <= 0.5 <= high
    assert 0.06 < high - low < 0.15


def test_accuracy_is_of_images_not_trained_on():
    """A fifth of the images that judge have the sign turned: 0.8 are right."""
    codes = SIGNS[:, :1].copy()
    codes[200::5] *= -1
    result = sap_of(codes, BITS[:, :1], train=200)
    np.testing.assert_allclose(result.details["accuracies"], [[0.8]], atol=1e-12)


def test_duplicated_and_constant_codes_score_zero():
    assert sap_of(np.tile(SIGNS, 2), BITS, train=200).value == 0.0
    assert sap_of(np.ones((400, 3)), BITS, train=200).value == 0.0


def test_random_codes_score_almost_nothing():
    assert sap_of(np.random.default_rng(0).normal(size=(400, 4)), BITS, train=200).value < 0.08


def test_a_rotated_pair_scores_zero():
    codes = np.stack([SIGNS.sum(-1), SIGNS[:, 0] - SIGNS[:, 1]], -1)
    assert abs(sap_of(codes, BITS, train=200).value) < 1e-12


def test_permuting_dimensions_changes_nothing():
    codes = SIGNS + np.random.default_rng(0).normal(scale=4.0, size=SIGNS.shape)
    plain = sap_of(codes, BITS, train=200)
    assert 0.2 < plain.value < 0.48
    assert sap_of(codes[:, ::-1], BITS, train=200).value == pytest.approx(plain.value, abs=1e-12)
    # The SVM's penalty is not free of scale, but a dimension this wide hardly feels it.
    assert sap_of(-3 * codes, BITS, train=200).value == pytest.approx(plain.value, abs=0.02)


def test_a_factor_with_one_value_is_left_out():
    more = np.concatenate([BITS, np.full((400, 1), 7)], -1)
    result = sap_of(SIGNS, more, train=200)
    np.testing.assert_allclose(result.value, 0.5, atol=1e-12)
    assert result.details["accuracies"][:, 2].tolist() == [0, 0]
