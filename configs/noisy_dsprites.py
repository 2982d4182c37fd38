"""A system on Noisy-dSprites: white sprites on uniform noise (Locatello et al. 2019).

    python launch.py --config=configs/noisy_dsprites.py[:MODEL]

The recipe is that of dSprites; there is no published score of IB-GAN on it. Not run at
full length here yet.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("noisy_dsprites", model or "ibgan")
    config.dataset.name = "noisy_dsprites"
    return config
