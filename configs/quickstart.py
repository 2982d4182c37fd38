"""placeholder"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """x"""
    config = defaults.base("quickstart", model or "ibgan")
    config.network.generator_width = 8
    config.network.discriminator_width = 8
    config.train.steps = 100
    config.train.log_every = 10
    config.train.evaluate_every = 50
    config.train.checkpoint_every = 50
    return config
