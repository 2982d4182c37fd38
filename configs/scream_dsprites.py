"""A system on Scream-dSprites: sprites that invert patches of a painting (Locatello et al. 2019).

    python launch.py --config=configs/scream_dsprites.py[:MODEL] --config.dataset.painting=FILE

Without a file a generated stand-in is used, and the report says so. The recipe is that of dSprites;
there is no published score of IB-GAN on it. Not run at
full length here yet.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("scream_dsprites", model or "ibgan")
    config.dataset.name = "scream_dsprites"
    return config
