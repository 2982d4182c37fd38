"""A system on all 737,280 dSprites for a laptop: IB-GAN takes about 20 minutes on one CPU core.

    python launch.py --config=configs/quickstart.py[:MODEL]

A demonstration, not the paper's run. GANs have half the width, half the batch, larger learning
rates, and instance noise that fades over 6,000 steps; `results/quickstart` has what IB-GAN reached.
D's learning rate decides: at 4e-6 the background stays a grid, at 6e-6 to 1e-5 further dimensions
appear but mix the factors, at 4e-5 D wins while the noise is still high. VAEs keep their published
recipe and stop after 4,000 steps, by which VAE and beta-TCVAE scored 0.64 and 0.63
(`results/dsprites-*-40min`).
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("quickstart", model or "ibgan")
    config.train.steps = 4_000  # VAEs: their own recipe serves
    config.train.evaluate_every = 1_000
    config.train.checkpoint_every = 1_000
    if "noise_steps" in config.hparams:  # GANs
        config.train.steps = 8_000
        config.train.batch_size = 32
        config.network.generator_width = 8
        config.network.discriminator_width = 8
        config.hparams.update({"noise_end": 0.1, "noise_steps": 6_000.0})
        rates = {"lr_generator": 2e-4, "lr_reconstructor": 2e-4, "lr_discriminator": 2e-5}
        config.hparams.update(rates)
    if config.model == "ibgan":
        config.hparams.update({"lr_encoder": 2e-4, "beta": 0.07})
    return config
