"""GILBO where the best diagonal Gaussian's bound is known in closed form."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.gilbo import gilbo

KEY = jax.random.key(2)
WEIGHTS = np.array([[0.8, 0.6, 0.0, 0.0], [0.0, 0.0, 0.6, 0.8]], np.float32)
QUICK = {"steps": 300, "batch_size": 32, "learning_rate": 3e-3, "draws": 2000}


def mixtures(weights, z):
    """Codes [B, 4] -> images [B, 16, 16, 2] whose channels are flat: u = weights z, scaled."""
    u = 0.4 * z @ weights.T
    return jnp.broadcast_to(u[:, None, None, :], (len(z), 16, 16, 2))


@pytest.fixture(scope="module")
def score():
    return gilbo(Partial(mixtures, jnp.asarray(WEIGHTS)), 4, KEY, **QUICK)


def test_a_linear_gaussian_generator_is_approached_from_below(score):
    """z_i given u has variance 1 - w_i^2, so its best Gaussian is worth -log(1 - w_i^2) / 2.

    The other code of each mixture is the noise; correlations are beyond a diagonal Gaussian.
    """
    known = -0.5 * np.log1p(-np.sum(WEIGHTS**2 * (WEIGHTS**2 > 0), axis=0))
    low, high = score.interval
    assert 0.9 * known.sum() < score.value < known.sum() + 0.02
    assert low < score.value < high < low + 0.25
    np.testing.assert_allclose(score.details["per_dimension"], known, atol=0.06)
    np.testing.assert_allclose(score.details["per_dimension"].sum(), score.value)


def test_training_is_recorded_and_rises(score):
    training = score.details["training"]
    assert len(training) == 20
    assert training[0] < training[-1] - 0.3
    np.testing.assert_allclose(np.mean(training[-5:]), score.value, atol=0.15)


def test_the_record_of_a_score(score):
    record = json.loads(json.dumps(score.as_dict()))
    assert (record["metric"], record["protocol"]) == ("gilbo", "conv_encoder")
    assert record["settings"] == QUICK
    assert record["key"] == jax.random.key_data(KEY).tolist()


def test_a_generator_that_ignores_its_code_tells_nothing():
    def fixed(z):
        return jnp.zeros((len(z), 16, 16, 1))

    score = gilbo(fixed, 2, KEY, steps=150, batch_size=32, draws=2000)
    assert -0.05 < score.value < 0.01
    assert score.interval[1] > -0.01


def test_the_value_is_of_fresh_draws_and_the_key_decides():
    """One step on one draw: only the draws after it can make the mean what it is."""

    def run(key, draws):
        return gilbo(Partial(mixtures, WEIGHTS), 4, key, steps=1, batch_size=1, draws=draws)

    few, again, other = run(KEY, 300), run(KEY, 300), run(jax.random.key(3), 300)
    assert few.as_dict() == again.as_dict()
    assert few.value != other.value


def test_images_that_are_not_finite():
    def broken(z):
        return jnp.full((len(z), 16, 16, 1), jnp.nan)

    with pytest.raises(UserError, match="not finite"):
        gilbo(broken, 2, KEY, steps=2, batch_size=2, draws=10)


@pytest.mark.parametrize("number", ["steps", "batch_size", "learning_rate", "draws"])
def test_numbers_that_cannot_serve(number):
    with pytest.raises(UserError, match=number):
        gilbo(Partial(mixtures, WEIGHTS), 4, KEY, **(QUICK | {number: 0}))
