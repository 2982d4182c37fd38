"""CelebA-HQ at 1024 x 1024: data only, no system here makes images of that size yet.

    python launch.py --mode=prepare --config=configs/celeba_hq.py --archives=DIR

DIR holds the PNGs or the imgHQ*.npy. Prepared with --config.dataset.resolution=64 they train as
CelebA does, with its recipe.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.images(
        "celeba_hq", model or "ibgan", 1_000_000, width=64, r_dim=15, beta=0.35
    )
    config.dataset.source = "stream"
    config.dataset.resolution = 1024
    return config
