"""A system on Color-dSprites as IB-GAN defines it: each channel one of 8 levels in [0, 1].

    python launch.py --config=configs/color_dsprites.py[:MODEL]

IB-GAN: beta 0.071, 500,000 steps of 64 images; the paper's Table 1 gives a FactorVAE score of 0.79
(mean of ten seeds, the best over each run's checkpoints). Not run at full length here yet.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("color_dsprites", model or "ibgan")
    config.dataset.name = "color_dsprites"
    if config.model == "ibgan":
        config.hparams.beta = 0.071
    if "noise_steps" in config.hparams:  # GANs
        config.train.steps = 500_000
        config.train.evaluate_every = 5_000
    return config
