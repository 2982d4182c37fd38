"""A program with the factors of its matrix products rounded: a GPU's precisions on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.extend import core

# The bits of a float32's 23-bit mantissa that are left of a factor; the exponent keeps its 8.
MANTISSA_BITS = {"TF32_TF32_F32": 10, "BF16_BF16_F32": 7}


def rounded(function: Callable, precision: str, *shapes: Any) -> Callable:
    """`function` as an accelerator computes it under jax.default_matmul_precision(`precision`).

    The products that then ask for that precision get factors that are rounded to it; sums are
    float32, as there, in whatever order the device takes them. Donation and shardings are lost.

    Args:
      function: (*arguments) -> tree of arrays.
      precision: a key of MANTISSA_BITS.
      shapes: what the arguments look like; the result takes no others.

    Returns:
      The same function, jitted.
    """
    with jax.default_matmul_precision(precision):
        traced, out = jax.make_jaxpr(function, return_shape=True)(*shapes)
    program = jax.jit(core.jaxpr_as_fun(_rounded(traced, precision)))
    tree = jax.tree.structure(out)
    return lambda *arguments: jax.tree.unflatten(tree, program(*jax.tree.leaves(arguments)))


def _rounded(closed: core.ClosedJaxpr, precision: str) -> core.ClosedJaxpr:
    """The same jaxpr, and those within it, with rounding before each such product."""

    def evaluate(*inputs: jax.Array) -> list:
        jaxpr = closed.jaxpr
        values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        values |= dict(zip(jaxpr.invars, inputs, strict=True))

        def value(atom: Any) -> Any:
            return atom.val if isinstance(atom, core.Literal) else values[atom]

        for equation in jaxpr.eqns:
            operands, params = [value(atom) for atom in equation.invars], dict(equation.params)
            for name, inner in params.items():
                if isinstance(inner, core.ClosedJaxpr):
                    params[name] = _rounded(inner, precision)
            if params.get("precision") == lax.DotAlgorithmPreset[precision]:
                params["precision"] = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)
                operands = [lax.reduce_precision(x, 8, MANTISSA_BITS[precision]) for x in operands]
            results = equation.primitive.bind(
                *operands, **equation.primitive.get_bind_params(params)
            )
            results = results if equation.primitive.multiple_results else [results]
            values |= dict(zip(equation.outvars, results, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    return jax.make_jaxpr(evaluate)(*closed.in_avals)
