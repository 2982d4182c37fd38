"""A system on 3D Chairs, grey as IB-GAN has them, 64 x 64; IB-GAN by its authors' recipe.

    python launch.py --mode=prepare --config=configs/chairs3d.py --archives=FILE   # once
    python launch.py --config=configs/chairs3d.py[:MODEL] [--config.dataset.name=chairs3d_rgb]

FILE is rendered_chairs.tar. beta 0.325, r of 10 dimensions, 700,000 steps of 64 images.
chairs3d_rgb has the colours, as ID-GAN does; it is prepared by itself. Not run at full length here
yet.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    return defaults.images("chairs3d", model or "ibgan", 700_000, width=32, r_dim=10, beta=0.325)
