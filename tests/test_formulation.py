"""Every formulation of a convolution against lax in float64, and what 16 bits store."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from double import double_precision
from jax import lax

from ibgan_jax import distributed
from ibgan_jax.networks import formulation
from ibgan_jax.networks.convolution import convolve, convolve_transpose
from ibgan_jax.networks.formulation import Formulation, choose, using

# (kernel, stride, pad, inputs, outputs, side): the layers of IB-GAN, and where fewer products than
# patches are laid out (the first) or as many.
LAYERS = [(4, 2, 1, 16, 8, 8), (4, 2, 1, 3, 8, 8), (3, 1, 1, 16, 8, 6), (8, 1, 0, 4, 8, 8)]
layers = pytest.mark.parametrize("layer", LAYERS, ids=str)
ALONE = ("NHWC", "HWIO", "NHWC")


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def oracle(x, kernel, stride, pad):
    padding = ((pad, pad), (pad, pad))
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=ALONE)


def arguments(layer):
    size, stride, pad, inputs, outputs, side = layer
    x, kernel = normal(1, 2, side, side, inputs), normal(2, size, size, inputs, outputs)
    small = (side + 2 * pad - size) // stride + 1
    return x, kernel / size, normal(3, 2, small, small, outputs)


def both(layer, formulated):
    """(convolution, its gradients, transpose, its gradients), each traced by the formulation."""
    _, stride, pad, *_ = layer
    x, kernel, y = arguments(layer)

    def transpose(y, kernel):
        if formulated is None:
            _, pull_back = jax.vjp(lambda x: oracle(x, kernel, stride, pad), x)
            return pull_back(y)[0]
        return convolve_transpose(y, kernel, stride, pad)

    def straight(x, kernel):
        return (oracle if formulated is None else convolve)(x, kernel, stride, pad)

    def all_of_it(x, kernel, y):
        results = []
        for function, argument in ((straight, x), (transpose, y)):
            gradients = jax.grad(lambda a, k, f=function: jnp.sum(jnp.sin(f(a, k))), (0, 1))
            results += [function(argument, kernel), *gradients(argument, kernel)]
        return results

    if formulated is None:
        return jax.jit(all_of_it)(x, kernel, y)
    with using(formulated):
        return jax.jit(all_of_it)(x, kernel, y)


def error(actual, expected):
    return max(
        float(np.max(np.abs(np.asarray(a, float) - e)) / np.max(np.abs(e)))
        for a, e in zip(actual, expected, strict=True)
    )


@layers
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("form", formulation.FORMS)
def test_every_form_is_the_convolution_and_its_transpose(layer, form, platform):
    with double_precision():
        assert error(both(layer, choose(platform, form)), both(layer, None)) < 1e-12


@layers
@pytest.mark.parametrize(
    "storage, bound", [(jnp.float32, 2e-6), (jnp.float16, 3e-3), (jnp.bfloat16, 3e-2)]
)
def test_storage_rounds_and_no_more(layer, storage, bound):
    """float32 as a storage shows the layout alone; 16 bits have 2^-11 and 2^-8 of rounding."""
    with double_precision():
        expected = both(layer, None)
    rounded = error(both(layer, Formulation("patches", storage)), expected)
    assert rounded < bound
    assert storage == jnp.float32 or rounded > bound / 100  # it does round


@pytest.mark.parametrize("form", ["patches", "lax"])
def test_products_take_16_bits_and_add_up_in_float32_or_store_16(form):
    x, kernel, _ = arguments(LAYERS[0])
    with using(choose("gpu", form, "float16")):
        program = jax.make_jaxpr(jax.grad(lambda x, k: jnp.sum(convolve(x, k, 2, 1)), (0, 1)))
        text = str(program(x.astype(jnp.float32), kernel.astype(jnp.float32)))
    name = "conv_general_dilated" if form == "lax" else "dot_general"
    products = [line for line in text.splitlines() if f" {name}[" in line]
    assert products
    # The layout itself: concatenated patches or padded blocks are 16 bits wide.
    assert "f16" in text
    assert not [line for line in text.splitlines() if "concatenate" in line and ":f32" in line]


def test_small_cotangents_survive_float16():
    """2e-8 is below float16's smallest number; the scale of 2^10 keeps it."""
    x, kernel, _ = arguments(LAYERS[0])

    def gradients(chosen, weight):
        with using(chosen):
            return jax.grad(lambda x, k: weight * jnp.sum(convolve(x, k, 2, 1)), (0, 1))(x, kernel)

    for small, large in zip(
        gradients(choose("gpu", "patches", "float16"), 2e-8),
        gradients(choose("gpu", "patches"), 2e-8),
        strict=True,
    ):
        assert error([small], [np.asarray(large)]) < 0.05


def test_choice():
    assert choose("cpu") == Formulation("filtered", None, True)
    assert choose("gpu").form == choose("tpu").form == "patches"
    assert choose("gpu", "lax", "tf32").storage is None
    assert choose("gpu", precision="bfloat16").storage == jnp.bfloat16
    with pytest.raises(ValueError, match="'winograd' is not one of: auto, filtered, patches, lax"):
        choose("gpu", "winograd")
    with pytest.raises(ValueError, match="not with float16"):
        choose("gpu", "filtered", "float16")


def test_using_ends():
    before = formulation.current()
    with using(choose("gpu", "lax")):
        assert formulation.current().form == "lax"
    assert formulation.current() == before == choose("cpu")


def test_this_xla_knows_what_it_is_told_about_a_gpu():
    options = distributed.compiler_options("gpu")
    program = jax.jit(lambda x: x + 1).lower(1.0)
    assert program.compile(compiler_options=options)(1.0) == 2.0
    with pytest.raises(Exception, match="No such compile option"):
        program.compile(compiler_options={f"{name}_": x for name, x in options.items()})
    assert distributed.compiler_options("cpu") is None
