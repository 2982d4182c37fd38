"""Table 1 of IB-GAN (Jeon et al., AAAI 2021): seven systems on two data sets, ten seeds each.

    python launch.py --config=configs/table1.py [--config.study.seeds="(0,1)"]

`--config.study.grid=True` trains each system with every published value of its own weight (beta,
gamma), otherwise with the default. The runs of a system on a data set train as one population, into
runs/table1; the same command takes up what is not finished. `python launch.py --mode=report
--workdir=runs/table1` prints the paper's value, ours and the difference, with how many seeds and
steps stand behind ours. At full length this is the work of a GPU: 140 runs of 150,000 to 500,000
steps.
"""

from ml_collections import ConfigDict

MODELS = ("gan", "infogan", "ibgan", "vae", "beta_vae", "factor_vae", "beta_tcvae")


def get_config(_: str = ""):  # noqa: ANN201
    """The study: experiments are the config files of that name beside this one."""
    config = ConfigDict()
    config.name = "table1"
    config.study = {
        "experiments": ("dsprites", "color_dsprites"),
        "models": MODELS,
        "seeds": tuple(range(10)),
        "grid": False,  # True: every value of each system's own weight (`grid` of its config)
    }
    config.dataset = {"source": "resident", "dir": "data"}
    # 0: what each experiment has.
    periods = ("steps", "log_every", "evaluate_every", "checkpoint_every")
    config.train = {**dict.fromkeys(periods, 0), "max_minutes": 0.0, "light": False}
    config.population = {"at_once": 0}  # of each system's population
    # FactorVAE scores, means of ten seeds, the best over each run's checkpoints.
    config.published = {
        "dsprites": dict(zip(MODELS, (0.40, 0.61, 0.80, 0.61, 0.69, 0.81, 0.79), strict=True)),
        "color_dsprites": dict(
            zip(MODELS, (0.35, 0.55, 0.79, 0.59, 0.74, 0.82, 0.80), strict=True)
        ),
    }
    return config.lock()
