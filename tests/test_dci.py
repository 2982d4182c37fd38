"""Disentanglement, completeness and informativeness of importances and codes that are known."""

import numpy as np
import pytest
from factor_codes import everything, ideal

from ibgan_jax.metrics import completeness, dci_of, disentanglement

FACTORS = everything(3, 4, 2, times=15)
TRAIN = 240
CLASSIFIERS = ["boosted_trees", "l1_logistic"]


@pytest.fixture(params=CLASSIFIERS)
def classifier(request):
    if request.param == "boosted_trees":
        pytest.importorskip("sklearn")
    return request.param


def test_matrices_worked_by_hand():
    for ideal_matrix in (
        np.eye(3),
        np.eye(3)[[2, 0, 1]],
        np.concatenate([np.eye(3), np.zeros((2, 3))]),
    ):
        assert disentanglement(ideal_matrix) == pytest.approx(1.0, abs=1e-6)
        assert completeness(ideal_matrix) == pytest.approx(1.0, abs=1e-6)
    assert disentanglement(np.full((4, 3), 0.25)) == pytest.approx(0.0, abs=1e-6)
    assert completeness(np.full((4, 3), 0.25)) == pytest.approx(0.0, abs=1e-6)
    assert disentanglement(np.zeros((4, 3))) == pytest.approx(0.0, abs=1e-6)
    # Two dimensions a factor: none is entangled, no factor is in one place.
    twice = np.repeat(np.eye(2), 2, axis=0) / 2
    assert disentanglement(twice) == pytest.approx(1.0, abs=1e-6)
    assert completeness(twice) == pytest.approx(1 - np.log(2) / np.log(4), abs=1e-6)


def test_dimensions_weigh_as_much_as_they_matter():
    """Dimension 0 is factor 0's with 3/4 of all importance, dimension 1 is spread evenly."""
    matrix = np.array([[1.5, 0.0], [0.25, 0.25]])
    assert disentanglement(matrix) == pytest.approx(0.75, abs=1e-6)


def test_ideal_codes(classifier):
    result = dci_of(ideal(FACTORS), FACTORS, TRAIN, classifier)
    assert result.value > 0.99
    assert result.details["completeness"] > 0.99
    assert result.details["informativeness"] == 1.0
    assert result.details["informativeness_train"] == 1.0
    np.testing.assert_allclose(result.details["importance"], np.eye(3), atol=0.02)
    assert result.interval[0] <= result.value <= result.interval[1]
    assert result.interval[1] - result.interval[0] < 0.05


def test_duplicated_codes_are_disentangled_but_not_complete():
    result = dci_of(np.tile(ideal(FACTORS), 2), FACTORS, TRAIN, "l1_logistic")
    assert result.value > 0.99
    # Importance in two equal halves of six places.
    assert result.details["completeness"] == pytest.approx(1 - np.log(2) / np.log(6), abs=0.02)


def test_a_rotated_pair_is_entangled(classifier):
    factors = everything(4, 4, times=30)
    codes = np.stack([factors.sum(-1), factors[:, 0] - factors[:, 1]], -1)
    result = dci_of(codes, factors, 400, classifier)
    assert result.value < 0.15
    assert result.details["completeness"] < 0.15
    # It is all there nevertheless, and linearly.
    assert result.details["informativeness"] > 0.9


def test_only_trees_see_what_is_not_linear():
    pytest.importorskip("sklearn")
    factors = everything(3, 2, times=60)
    folded = np.stack([(factors[:, 0] == 1) * 1.0, factors[:, 1]], -1)
    informed = [
        dci_of(np.abs(folded), factors, 300, classifier).details["informativeness"]
        for classifier in CLASSIFIERS
    ]
    # Of three values the middle one is told from the others, which are guessed between.
    assert informed == [pytest.approx((2 / 3 + 1) / 2, abs=0.05)] * 2
    sign = everything(2, 2, times=60)
    product = np.stack([(2 * sign[:, 0] - 1) * (2 * sign[:, 1] - 1), sign[:, 1]], -1) * 1.0
    trees, linear = (
        dci_of(product, sign, 200, classifier).details["informativeness"]
        for classifier in CLASSIFIERS
    )
    assert trees == 1.0
    assert linear == pytest.approx(0.75, abs=0.07)


def test_constant_and_random_codes(classifier):
    factors = everything(2, 3, times=60)
    constant = dci_of(np.ones((360, 3)), factors, TRAIN, classifier)
    assert constant.value == pytest.approx(0.0, abs=1e-6)
    assert constant.details["importance"].sum() == 0
    random = dci_of(np.random.default_rng(0).normal(size=(360, 3)), factors, TRAIN, classifier)
    assert random.details["completeness"] < 0.6
    # Chance: the mean of 1/2 and 1/3; over 120 images it has a deviation of 0.03.
    assert constant.details["informativeness"] == pytest.approx(5 / 12, abs=1e-9)
    assert random.details["informativeness"] == pytest.approx(5 / 12, abs=0.1)


def test_permuting_and_scaling_dimensions_changes_nothing():
    rng = np.random.default_rng(0)
    codes = FACTORS @ rng.normal(size=(3, 4)) + 0.3 * rng.normal(size=(360, 4))
    plain = dci_of(codes, FACTORS, TRAIN, "l1_logistic")
    changed = dci_of((codes * [3, -0.2, 50, 1])[:, [2, 3, 0, 1]], FACTORS, TRAIN, "l1_logistic")
    assert 0.05 < plain.value < 0.95
    assert changed.value == pytest.approx(plain.value, abs=1e-3)
    np.testing.assert_allclose(
        changed.details["importance"], plain.details["importance"][[2, 3, 0, 1]], atol=2e-3
    )


def test_a_factor_with_one_value_is_left_out():
    more = np.concatenate([FACTORS, np.zeros((360, 1), int)], -1)
    plain = dci_of(ideal(FACTORS), FACTORS, TRAIN, "l1_logistic")
    result = dci_of(ideal(FACTORS), more, TRAIN, "l1_logistic")
    assert result.value == plain.value
    assert result.details["informativeness"] == 1.0
    assert result.details["importance"][:, 3].tolist() == [0, 0, 0]
