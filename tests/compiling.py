"""Programs as users run them, in a suite for which conftest.py switches optimisations off."""

import jax


def optimised(function, *arguments):
    """A jitted function compiled for arguments like these, with XLA's optimisations."""
    name = "jax_disable_most_optimizations"
    before = jax.config.values[name]
    jax.config.update(name, False)
    try:
        return function.lower(*arguments).compile()
    finally:
        jax.config.update(name, before)
