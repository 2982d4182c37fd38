"""Disentangled representation learning with GANs and VAEs in JAX."""

__version__ = "0.1.0"
