"""HOW GOOD it is: scores of a representation against the factors that made the images."""

from ibgan_jax.metrics.factor_vae import Score, factor_vae_score

__all__ = ["Score", "factor_vae_score"]
