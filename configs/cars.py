"""A system on Stanford Cars, cropped by their bounding boxes to 64 x 64.

    python launch.py --mode=prepare --config=configs/cars.py --archives=DIR   # once
    python launch.py --config=configs/cars.py[:MODEL]

DIR holds cars_train.tgz, cars_test.tgz and the devkit. There is no published recipe of IB-GAN for
it; it has CelebA's. Not run at full length here yet.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    return defaults.images("cars", model or "ibgan", 1_000_000, width=64, r_dim=15, beta=0.35)
