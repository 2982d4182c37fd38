"""Fig. 3 of IB-GAN (Jeon et al., AAAI 2021): dSprites, 15 values of beta, ten seeds each.

    python launch.py --config=configs/beta_sweep.py[:MODEL] [--config.population.seeds="(0,1)"]

150 runs of 150,000 steps as one population, in runs/beta_sweep-ibgan-population: the work of a GPU.
Its report draws I_U, I_L and the score against beta. Another MODEL is swept over the published
values of its own weight (`grid` of its config).
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("beta_sweep", model or "ibgan")
    config.population.update(config.grid)
    config.population.seeds = tuple(range(10))
    return config
