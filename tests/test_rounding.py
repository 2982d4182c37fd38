"""Products with rounded factors, which show on a CPU what an accelerator's precisions do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks.rounding import rounded

A, B = (np.random.default_rng(i).normal(size=(7, 7)).astype(np.float32) for i in range(2))


def to_bfloat16(x):
    return np.asarray(jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32))


def to_tf32(x):
    """Round half to even at the 13 bits that a TF32 leaves out, on the integers themselves."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    half = np.uint64(0xFFF) + ((bits >> np.uint64(13)) & np.uint64(1))
    return ((bits + half) & np.uint64(0xFFFFE000)).astype(np.uint32).view(np.float32)


ROUNDINGS = {"BF16_BF16_F32": to_bfloat16, "TF32_TF32_F32": to_tf32}


@pytest.fixture(params=ROUNDINGS)
def precision(request):
    return request.param


def test_the_factors_are_rounded_and_the_sums_are_not(precision):
    round_ = ROUNDINGS[precision]
    product = rounded(lambda a, b: {"product": a @ b, "sum": a + b}, precision, A, B)(A, B)
    exact = round_(A).astype(float) @ round_(B).astype(float)
    np.testing.assert_allclose(product["product"], exact, rtol=1e-5, atol=1e-6)
    assert np.abs(exact - A.astype(float) @ B).max() > 1e-4
    np.testing.assert_array_equal(product["sum"], A + B)


def test_the_products_of_gradients_and_of_loops_are_rounded_too(precision):
    round_ = ROUNDINGS[precision]

    @jax.jit
    def gradient(a, b, cotangent):
        def body(carry, _):
            return carry, jax.vjp(lambda a: jax.nn.relu(a @ b), a)[1](cotangent)[0]

        return lax.scan(body, None, length=2)[1]

    cotangent = np.ones((7, 7), np.float32) + A
    found = rounded(gradient, precision, A, B, cotangent)(A, B, cotangent)
    passed = (round_(A).astype(float) @ round_(B) > 0) * cotangent
    exact = round_(passed).astype(float) @ round_(B).T
    np.testing.assert_allclose(found, np.stack([exact] * 2), rtol=1e-5, atol=1e-6)


def test_a_product_that_asks_for_more_is_left_alone(precision):
    def product(a, b):
        return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)

    np.testing.assert_array_equal(rounded(product, precision, A, B)(A, B), jax.jit(product)(A, B))
