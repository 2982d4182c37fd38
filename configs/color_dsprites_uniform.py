"""A system on disentanglement_lib's Color-dSprites: each channel uniform in [0.5, 1].

    python launch.py --config=configs/color_dsprites_uniform.py[:MODEL]

The recipe is that of dSprites; there is no published score of IB-GAN on it. Not run at
full length here yet.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("color_dsprites_uniform", model or "ibgan")
    config.dataset.name = "color_dsprites_uniform"
    return config
