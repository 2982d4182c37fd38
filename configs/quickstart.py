"""A system on all 737,280 dSprites for a laptop: IB-GAN takes about 8 minutes on two CPU cores.

    python launch.py --config=configs/quickstart.py[:MODEL]

A demonstration, not the paper's run. GANs have half the width, half the batch and far larger
learning rates without momentum, and what they do beyond the paper is explained in `docs/recipe.md`:
q_phi sees images that are moved and resized at random, and the four dimensions of IB-GAN's r begin
one after another. This tells the model that images show things at a place and of a size, so its
scores are not to be compared with those of methods without such knowledge. It was tuned for IB-GAN;
InfoGAN and GAN share its settings and have not been trained with them. `results/quickstart` has
five seeds of IB-GAN. VAEs keep their published recipe and stop after 4,000 steps, by which VAE and
beta-TCVAE scored 0.64 and 0.63 in one run each (`results/dsprites-*-40min`), VAE 0.58 in another
(`results/quickstart-vae`).
"""

from ibgan_jax import config as defaults


def get_config(model: str = "ibgan"):  # noqa: ANN201
    """The configuration; `model` is one of `ibgan_jax.models.NAMES`."""
    config = defaults.base("quickstart", model or "ibgan")
    config.train.steps = 4_000  # VAEs: their own recipe serves
    config.train.evaluate_every = 1_000
    config.train.checkpoint_every = 1_000
    if "noise_steps" in config.hparams:  # GANs
        config.train.steps = 12_000
        config.train.batch_size = 32
        config.network.update(
            {
                "generator_width": 8,
                "discriminator_width": 8,
                "arc": True,
                "pixel_shuffle": True,
                "shift": (3.5, 3.5),
                "zoom": 0.1,
                "noise_for_d": 0.6,
            }
        )
        config.hparams.update({"noise_start": 0.65, "noise_end": 0.38, "noise_steps": 7_000.0})
        config.hparams.update({"momentum": 0.0, "information": 0.7, "lr_generator": 2.8e-3})
        config.hparams.update({"lr_reconstructor": 3.64e-3, "lr_discriminator": 4.667e-4})
    if config.model == "ibgan":
        config.network.update({"z_dim": 8, "r_dim": 4})
        config.hparams.update({"lr_encoder": 8.4e-3, "beta": 0.05})
        config.hparams.update({"capacity": 0.8, "capacity_steps": 1_000.0})
        cascade = {"first": 1.0, "from": 1_000.0, "every": 1_000.0, "sideways": 2.5}
        config.hparams.update({f"cascade_{key}": value for key, value in cascade.items()})
    return config
