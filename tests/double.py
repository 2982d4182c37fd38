"""Double precision for the tests of the mathematics."""

from contextlib import contextmanager

import jax


@contextmanager
def double_precision():
    """float64; and XLA optimises nothing: run once or twice, programs compile in half the time."""
    with jax.enable_x64(True):
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", False)
