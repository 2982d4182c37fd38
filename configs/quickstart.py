"""A system on all 737,280 dSprites for a laptop: IB-GAN takes about nine minutes on two CPU cores.

    python launch.py --config=configs/quickstart.py[:MODEL]

A demonstration, not the paper's run. GANs have half the width, half the batch and larger learning
rates, `pixel_shuffle` and `arc` (see `network` in `ibgan_jax.models.players`), a smaller momentum,
and an instance noise that does not end. The recipe is the best of 320 for IB-GAN that were trained
on a GPU (`docs/recipe.md`), rounded; `results/quickstart` has what it reached. VAEs keep their
published recipe and stop after 4,000 steps, by which VAE and beta-TCVAE scored 0.64 and 0.63 in one
run each (`results/dsprites-*-40min`), VAE 0.58 in another (`results/quickstart-vae`).
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("quickstart", model or "ibgan")
    config.train.update({"steps": 4_000, "evaluate_every": 1_000, "checkpoint_every": 1_000})
    if "noise_steps" in config.hparams:  # GANs
        config.train.update({"steps": 15_000, "evaluate_every": 1_500, "checkpoint_every": 1_500})
        config.train.batch_size = 32
        config.network.update({"generator_width": 8, "discriminator_width": 8})
        config.network.update({"arc": True, "pixel_shuffle": True})
        config.hparams.update({"noise_start": 0.95, "noise_end": 0.3, "noise_steps": 15_000.0})
        rates = {"lr_generator": 1.4e-3, "lr_reconstructor": 1.8e-3, "lr_discriminator": 1.4e-4}
        config.hparams.update({"momentum": 0.5, "information": 0.7, **rates})
    if config.model == "ibgan":
        config.network.z_dim = 8
        config.hparams.update({"lr_encoder": 1.4e-3, "beta": 0.1})
    return config
