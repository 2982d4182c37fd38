"""Batch normalisation with its ReLU against Flax's, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import double_precision
from flax import linen as nn

from ibgan_jax.networks.normalisation import BatchNorm

shapes = pytest.mark.parametrize("shape", [(6, 3), (4, 2, 3, 5)])
slopes = pytest.mark.parametrize("slope", [0.0, 0.2])


@pytest.fixture(autouse=True)
def double():
    with double_precision():
        yield


class Flax(nn.Module):
    """What BatchNorm replaces."""

    slope: float

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.leaky_relu(x, self.slope)


def case(shape, slope):
    """(ours, Flax's, variables of each, x)."""
    x = jnp.asarray(np.random.default_rng(0).normal(0.3, 2.0, shape))
    keys = iter(jax.random.split(jax.random.key(1), 4))
    variables = BatchNorm(slope).init(jax.random.key(0), x, True)
    variables = jax.tree.map(
        lambda leaf: jax.random.uniform(next(keys), leaf.shape, jnp.float64, 0.5, 2.0), variables
    )
    theirs = {kind: {"norm": leaves} for kind, leaves in variables.items()}
    return BatchNorm(slope), Flax(slope), variables, theirs, x


def assert_close(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-11, atol=1e-12)


def test_variables_begin_as_flax_has_them():
    x = jnp.zeros((4, 3))
    ours = BatchNorm().init(jax.random.key(0), x, True)
    theirs = nn.BatchNorm(use_running_average=False).init(jax.random.key(0), x)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert_close(ours, theirs)


@shapes
@slopes
def test_outputs_and_running_statistics_equal_flax(shape, slope):
    ours, flax, variables, theirs, x = case(shape, slope)
    actual = ours.apply(variables, x, True, mutable=["batch_stats"])
    expected = flax.apply(theirs, x, True, mutable=["batch_stats"])
    assert_close(actual, expected)
    assert_close(ours.apply(variables, x, False), flax.apply(theirs, x, False))


@shapes
@slopes
def test_first_and_second_gradients_equal_flax(shape, slope):
    def gradients(module, variables, x):
        def loss(params, x):
            y, _ = module.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y) * jnp.arange(y.size).reshape(y.shape))

        first = jax.grad(loss, (0, 1))
        penalty = jax.grad(lambda params, x: jnp.sum(first(params, x)[1] ** 2), (0, 1))
        return first(variables["params"], x), penalty(variables["params"], x)

    ours, flax, variables, theirs, x = case(shape, slope)
    assert_close(gradients(ours, variables, x), gradients(flax, theirs, x))
