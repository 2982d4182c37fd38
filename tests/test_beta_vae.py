"""The beta-VAE score of codes whose score is known."""

import dataclasses

import jax
import numpy as np
import pytest
from factor_codes import FactorsAsImages, of_factors

from ibgan_jax.metrics import PROTOCOLS, beta_vae_of, beta_vae_score
from ibgan_jax.metrics.beta_vae import draw_pairs, mean_differences

pytest.importorskip("sklearn")

SIZES = (3, 4, 5)


@pytest.fixture(autouse=True)
def few_votes(monkeypatch):
    protocols = PROTOCOLS["beta_vae"]
    few = dataclasses.replace(protocols["disentanglement_lib"], train=600, test=300, pairs=32)
    monkeypatch.setitem(protocols, "disentanglement_lib", few)


def score(function, sizes=SIZES):
    return beta_vae_score(of_factors(function), FactorsAsImages(sizes), jax.random.key(0))


def test_pairs_are_alike_in_the_chosen_factor_alone():
    fixed, factors = draw_pairs(np.random.default_rng(0), np.array([3, 1, 40]), 50, 20)
    alike = (factors[:, 0] == factors[:, 1]).all(axis=1)
    assert alike[np.arange(50), fixed].all()
    # A factor with one value is never chosen.
    assert set(fixed.tolist()) == {0, 2}
    assert not alike[fixed == 0, 2].any()
    # Unlike a FactorVAE vote, pairs of a vote differ in the factor.
    assert not (factors[:, 0] == factors[:, 0, :1]).all(axis=1)[np.arange(50), fixed].any()


def test_mean_differences_by_hand():
    codes = np.array([[[[1.0, 5.0], [2.0, 5.0]], [[4.0, 5.0], [1.0, 7.0]]]])
    assert mean_differences(codes).tolist() == [[2.0, 1.0]]


def test_ideal_codes_score_one_as_do_rotated_ones():
    result = score(lambda f: 4 * f)
    assert result.value == 1.0
    assert result.details["train_accuracy"] == 1.0
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert score(lambda f: 4 * f @ rotation).value > 0.9


def test_constant_codes_are_at_chance():
    result = score(lambda f: 0 * f)
    # 300 votes: the standard deviation of chance is 0.027.
    assert abs(result.value - 1 / 3) < 0.1
    assert result.interval[0] < 1 / 3 + 0.05
    assert result.interval[0] <= result.value <= result.interval[1]


def test_a_dimension_too_few():
    """Without the third dimension its factor is told by neither of the others being alike."""
    assert score(lambda f: 4 * f[:, :2]).value > 0.9
    # With one dimension the two other factors cannot be told apart: 1/3 + 2/3 * 1/2.
    assert score(lambda f: 4 * f[:, :1]).value == pytest.approx(2 / 3, abs=0.08)


def test_accuracy_is_of_votes_not_trained_on():
    fixed = np.tile([0, 1], 100)
    differences = np.eye(2)[fixed]
    differences[100:120] = differences[100:120, ::-1]
    result = beta_vae_of(differences, fixed, train=100)
    assert result.value == pytest.approx(0.8)
    assert result.details["train_accuracy"] == 1.0


def test_one_factor_leaves_nothing_to_confuse():
    assert score(lambda f: f, sizes=(1, 5)).value == 1.0
