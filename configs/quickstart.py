"""A system on all 737,280 dSprites for a laptop: IB-GAN takes about 20 minutes on one CPU core.

    python launch.py --config=configs/quickstart.py[:MODEL]

A demonstration, not the paper's run. GANs have half the width, half the batch, larger learning
rates, D_w and q_phi share their front (as the paper's text has it), and instance noise fades to
0.35 and stays there; found for IB-GAN, and `results/quickstart` has what it reached. In trials of a
seed or two, two trunks kept mixing x, y and size, and so did a noise below 0.35. VAEs keep their
published recipe and stop after 4,000 steps, by which VAE and beta-TCVAE scored 0.64 and 0.63 in one
run each (`results/dsprites-*-40min`), VAE 0.58 in another (`results/quickstart-vae`).
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
        config.network.generator_width = 8
        config.network.discriminator_width = 8
        config.network.shared_front = True
        config.hparams.update({"noise_end": 0.35, "noise_steps": 4_500.0})
        rates = {"lr_generator": 2e-4, "lr_reconstructor": 2e-4, "lr_discriminator": 5e-5}
        config.hparams.update(rates)
    if config.model == "ibgan":
        config.hparams.update({"lr_encoder": 2e-4, "beta": 0.07})
    return config
