"""Double precision for the tests of the mathematics."""

import jax


def double_precision():
    """A context of float64."""
    return jax.enable_x64(True)
