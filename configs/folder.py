"""A system on images of your own: any folder, zip or tar of them, squared to 64 x 64.

    python launch.py --mode=prepare --config=configs/folder.py --archives=FOLDER   # once
    python launch.py --config=configs/folder.py[:MODEL]

Another folder goes into another --config.dataset.dir. IB-GAN has CelebA's recipe.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    return defaults.images("folder", model or "ibgan", 1_000_000, width=64, r_dim=15, beta=0.35)
