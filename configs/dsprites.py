"""IB-GAN on all 737,280 dSprites: the paper's run (Jeon et al., AAAI 2021), nothing reduced.

    python launch.py --config=configs/dsprites.py[:MODEL]

beta 0.141, 150,000 steps of 64 images. The paper's Table 1 gives a FactorVAE score of 0.80 +- 0.07
(best over a run's checkpoints, ten seeds). On 2 CPU cores it takes eight to twelve hours.
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    return defaults.base("dsprites", model or "ibgan")
