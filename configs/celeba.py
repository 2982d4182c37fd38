"""A system on CelebA, aligned and cropped to 64 x 64; IB-GAN by its authors' recipe.

    python launch.py --mode=prepare --config=configs/celeba.py --archives=DIR   # once
    python launch.py --config=configs/celeba.py[:MODEL]

DIR holds img_align_celeba.zip. beta 0.35, r of 15 dimensions, 1,000,000 steps of 64 images: the
work of a GPU. Not run at full length here yet.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.images("celeba", model or "ibgan", 1_000_000, width=64, r_dim=15, beta=0.35)
    config.dataset.source = "stream"
    return config
