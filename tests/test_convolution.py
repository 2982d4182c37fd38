"""Convolutions as matrix products against lax and Flax, in float64: values and gradients."""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import double_precision
from flax import linen as nn
from jax import lax

from ibgan_jax.networks.convolution import (
    Conv,
    ConvTranspose,
    convolve,
    convolve_transpose,
)
from ibgan_jax.networks.patches import fold, unfold


class Geometry(NamedTuple):
    size: int  # of the kernel
    stride: int
    pad: int
    small: tuple[int, int]  # (height, width) on the small side
    inputs: int = 2


# All that the networks use, and a patch embedding. 8 x 8 kernels meet 1 x 1, as in the networks:
# elsewhere their overlap-add has 64 terms, which XLA takes a minute to compile.
GEOMETRIES = [
    Geometry(4, 2, 1, (4, 5)),
    Geometry(3, 1, 1, (5, 6)),
    Geometry(8, 1, 0, (1, 1)),
    Geometry(1, 1, 0, (4, 5)),
    Geometry(2, 2, 0, (3, 4)),
    # by minimal filtering: an even height and width, enough channels
    Geometry(4, 2, 1, (4, 6), 4),
    Geometry(3, 1, 1, (6, 4), 16),
    Geometry(6, 2, 2, (2, 2), 4),
]
BATCH, OUTPUTS = 3, 5
TOLERANCE = 1e-12

geometries = pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
kinds = pytest.mark.parametrize("kind", ["convolve", "convolve_transpose"])


@pytest.fixture(scope="module", autouse=True)
def double():
    with double_precision():
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def large(geometry):
    """(height, width) of the image that a convolution takes to the small side."""
    size, stride, pad, small, _ = geometry
    return tuple((n - 1) * stride + size - 2 * pad for n in small)


def functions(kind, geometry):
    """(ours, oracle, x, kernel); height and width differ."""
    size, stride, pad, _, inputs = geometry
    if kind == "convolve":
        x = normal(1, BATCH, *large(geometry), inputs)
        kernel = normal(2, size, size, inputs, OUTPUTS)
        return lambda x, k: convolve(x, k, stride, pad), lax_conv(stride, pad), x, kernel

    module = nn.ConvTranspose(
        OUTPUTS,
        (size, size),
        (stride, stride),
        padding=[(size - 1 - pad, size - 1 - pad)] * 2,
        use_bias=False,
        transpose_kernel=True,
        param_dtype=jnp.float64,
    )

    def oracle(x, kernel):
        return module.apply({"params": {"kernel": kernel}}, x)

    x, kernel = (
        normal(1, BATCH, *geometry.small, inputs),
        normal(2, size, size, OUTPUTS, inputs),
    )
    return lambda x, k: convolve_transpose(x, k, stride, pad), oracle, x, kernel


def lax_conv(stride, pad):
    def oracle(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            [(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return oracle


def assert_close(actual, expected, tolerance=TOLERANCE):
    """Largest difference relative to the largest magnitude, leaf by leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape and a.dtype == e.dtype == jnp.float64
        assert np.max(np.abs(a - e)) <= tolerance * np.max(np.abs(e))


def gradients(function):
    """Gradients by image and kernel of a loss that weighs every output differently."""
    return jax.grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), (0, 1))


@kinds
@geometries
def test_value_and_gradients_equal_lax(kind, geometry):
    ours, oracle, x, kernel = functions(kind, geometry)
    actual, expected = (
        jax.jit(lambda x, k, f=f: (f(x, k), gradients(f)(x, k)))(x, kernel) for f in (ours, oracle)
    )
    assert_close(actual, expected)


@kinds
@geometries
def test_second_order_gradient_equals_lax(kind, geometry):
    """As the R1 penalty needs: the gradient of |d score / d image|^2."""
    ours, oracle, x, kernel = functions(kind, geometry)

    def penalty(function):
        return lambda x, kernel: jnp.sum(gradients(function)(x, kernel)[0] ** 2)

    actual, expected = (jax.jit(jax.grad(penalty(f), (0, 1)))(x, kernel) for f in (ours, oracle))
    assert_close(actual, expected)


@kinds
@geometries
def test_descent_by_vmap_inside_scan_equals_loops(kind, geometry):
    """Two members with kernels of their own descend over two batches, as a population trains."""
    ours, oracle, x, kernel = functions(kind, geometry)
    kernels = jnp.stack([kernel, normal(4, *kernel.shape)])
    batches = jnp.stack([x, normal(5, *x.shape)])

    def descend(function, kernel, x):
        return kernel - 0.1 * gradients(function)(x, kernel)[1] / x.size

    @jax.jit
    def scanned(kernels, batches):
        members = jax.vmap(lambda kernel, x: descend(ours, kernel, x), (0, None))
        return lax.scan(lambda kernels, x: (members(kernels, x), None), kernels, batches)[0]

    @jax.jit
    def loops(kernels, batches):
        final = []
        for kernel in kernels:
            for x in batches:
                kernel = descend(oracle, kernel, x)
            final.append(kernel)
        return jnp.stack(final)

    assert_close(scanned(kernels, batches), loops(kernels, batches))


@geometries
def test_fold_is_the_adjoint_of_unfold(geometry):
    size, stride, pad, small, inputs = geometry
    blocks = size // stride
    x = normal(1, BATCH, *large(geometry), inputs)
    patches = unfold(x, blocks, stride, pad)
    assert patches.shape == (BATCH, *small, size * size * inputs)
    p = normal(2, *patches.shape)
    folded = fold(p, blocks, stride, pad)
    assert folded.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(patches, p), jnp.vdot(x, folded), rtol=TOLERANCE)


@geometries
def test_unfold_orders_patches_as_kernels_flatten(geometry):
    size, stride, pad, small, _ = geometry
    x = np.asarray(normal(1, BATCH, *large(geometry), geometry.inputs))
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    patches = np.asarray(unfold(jnp.asarray(x), size // stride, stride, pad))
    for i, j in np.ndindex(*small):
        rows, columns = (slice(k * stride, k * stride + size) for k in (i, j))
        window = padded[:, rows, columns].reshape(BATCH, -1)
        np.testing.assert_array_equal(patches[:, i, j], window)


@pytest.mark.parametrize("inputs", [2, 4])
def test_transpose_is_the_adjoint_of_convolve(inputs):
    x, y = normal(1, BATCH, 8, 8, inputs), normal(2, BATCH, 4, 4, OUTPUTS)
    kernel = normal(3, 4, 4, inputs, OUTPUTS)
    forward, back = convolve(x, kernel, 2, 1), convolve_transpose(y, kernel, 2, 1)
    np.testing.assert_allclose(jnp.vdot(forward, y), jnp.vdot(x, back), rtol=TOLERANCE)


def flax_modules(geometry, use_bias):
    """((ours, theirs) for the convolution, then for its transpose)."""
    size, stride, pad, *_ = geometry
    shape, strides = (size, size), (stride, stride)
    init = nn.initializers.normal(0.02)
    conv = nn.Conv(OUTPUTS, shape, strides, pad, use_bias=use_bias, kernel_init=init)
    transpose = nn.ConvTranspose(
        OUTPUTS,
        shape,
        strides,
        padding=[(size - 1 - pad, size - 1 - pad)] * 2,
        use_bias=use_bias,
        transpose_kernel=True,
        kernel_init=init,
    )
    return (
        (Conv(OUTPUTS, size, stride, pad, use_bias), conv),
        (ConvTranspose(OUTPUTS, size, stride, pad, use_bias), transpose),
    )


@pytest.mark.parametrize("use_bias", [True, False])
@geometries
def test_modules_take_the_parameters_of_flax(geometry, use_bias):
    pairs = flax_modules(geometry, use_bias)
    for (ours, theirs), shape in zip(pairs, (large(geometry), geometry.small), strict=True):
        x = normal(1, BATCH, *shape, geometry.inputs)
        made, params = (
            jax.eval_shape(m.init, jax.random.key(0), x)["params"] for m in (ours, theirs)
        )
        assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
        params = {name: normal(2, *leaf.shape) for name, leaf in params.items()}
        actual, expected = (jax.jit(m.apply)({"params": params}, x) for m in (ours, theirs))
        assert_close(actual, expected)


@pytest.mark.parametrize("function", [convolve, convolve_transpose])
def test_kernel_that_is_no_multiple_of_the_stride(function):
    with pytest.raises(ValueError, match="kernel size 3 must be a multiple of the stride 2"):
        function(jnp.ones((1, 8, 8, 2)), jnp.ones((3, 3, 2, 2)), 2, 1)


@pytest.mark.parametrize("shape", [(1, 7, 8, 2), (1, 8, 7, 2)])
def test_image_that_is_no_multiple_of_the_stride(shape):
    with pytest.raises(ValueError, match="must be a multiple of the stride 2") as caught:
        convolve(jnp.ones(shape), jnp.ones((4, 4, 2, 2)), 2, 1)
    assert str(shape) in str(caught.value)


def test_wide_patches_are_lax_where_no_gradient_is_wanted_and_agree_with_the_product():
    x, kernel = normal(1, 2, 8, 8, 8), normal(2, 4, 4, 8, 4)  # 128 numbers for 4 outputs

    def ours(x, kernel):
        return convolve(x, kernel, 2, 1)

    def value_and_pull_back(x, kernel):
        y, pull_back = jax.vjp(ours, x, kernel)
        return y, pull_back(y)

    assert "conv_general_dilated" in str(jax.make_jaxpr(ours)(x, kernel))
    assert "conv_general_dilated" not in str(jax.make_jaxpr(value_and_pull_back)(x, kernel))
    y, gradients = value_and_pull_back(x, kernel)
    np.testing.assert_allclose(y, ours(x, kernel), rtol=TOLERANCE, atol=TOLERANCE)
    _, pull_back = jax.vjp(lax_conv(2, 1), x, kernel)
    for got, wanted in zip(gradients, pull_back(y), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("size", "stride", "channels", "outputs", "products"),
    [
        (4, 2, 4, 4, [(9, 192)] + [(4, 12)] * 9),  # the kernel, then 2 x 2 tiles
        (3, 1, 16, 4, [(16, 192)] + [(4, 12)] * 16),
        (4, 2, 4, 5, [(25, 12)]),  # an odd number of outputs: one product with patches
        (4, 2, 3, 4, [(16, 12)]),  # few channels
    ],
)
def test_minimal_filtering_serves_paired_outputs_of_many_channels(
    size, stride, channels, outputs, products
):
    kernel = jnp.ones((size, size, channels, 12))
    large = (outputs - 1) * stride + size - 2
    jaxpr = jax.make_jaxpr(lambda x: convolve(x, kernel, stride, 1))(
        jnp.ones((1, large, large, channels))
    )
    shapes = re.findall(r"f64\[(\d+),(\d+)\] = dot_general", str(jaxpr))
    assert [(int(rows), int(columns)) for rows, columns in shapes] == products
