"""What a run is made of: defaults, checks, and the record that a workdir keeps of it.

`ConfigDict` stops here: the rest of the package takes a model, a dataset and a dict of numbers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from ibgan_jax import data, distributed, models
from ibgan_jax.errors import UserError
from ibgan_jax.members import AT_ONCE, DRAWS, members, varied
from ibgan_jax.networks import formulation

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# What may differ when a run is taken up again: its length, how a launch goes about it, its files.
_OF_A_LAUNCH = ("train.max_minutes", "train.light", "population.at_once")
FREE_KEYS = ("train.steps", *_OF_A_LAUNCH, "dataset.dir", "fid.classifier")
DATA_DIR = "data"
FACTS = ("channels", "dataset_size")  # settings of a model that its data set fills in
_WHAT = ("name", "seed", "model", "network", "dataset")
KEYS = (*_WHAT, "train", "hparams", "grid", "population", "fid")
_PERIODS = ("log_every", "evaluate_every", "checkpoint_every")


def base(name: str, model: str) -> ConfigDict:
    """Every key that a config has, with the defaults of `model`; `name` is the experiment's.

    Raises:
      UserError: no such model.
    """
    from ml_collections import ConfigDict

    made = models.get(model)
    fields = dataclasses.asdict(made)
    config = ConfigDict()
    config.name = name
    config.seed = 0
    config.model = model
    config.network = ConfigDict({k: v for k, v in fields.items() if k not in FACTS})
    config.dataset = ConfigDict(
        {
            "name": "dsprites",
            "source": "resident",
            "dir": DATA_DIR,
            "seed": 0,
            "painting": "",
            "resolution": data.SPRITE_SIDE,
            "mirror": False,
        }
    )
    config.train = ConfigDict(
        {
            "batch_size": 64,
            "steps_per_dispatch": 10,
            "log_every": 100,
            "evaluate_every": 2_500,
            "checkpoint_every": 2_500,
            "max_minutes": 0.0,  # of a launch; 0: no limit
            "light": False,  # no events, no pictures, no report, one checkpoint at the end
            "precision": distributed.EXACT,
            "convolution": formulation.AUTO,
            **made.recipe,
        }
    )
    # While training: the period in steps (0: never), whose features, of how many images.
    config.fid = ConfigDict({"every": 0, "classifier": "", "images": 50_000})
    config.hparams = ConfigDict(dict(made.hparams))
    config.grid = ConfigDict({name: tuple(values) for name, values in made.grid.items()})
    # How many members train at a time: 0: as fit in memory, -1: as finish within max_minutes.
    values = {"seeds": (), **dict.fromkeys(made.hparams, ())}
    config.population = ConfigDict({AT_ONCE: 0, DRAWS: 0, **values})
    return config.lock()


def images(name: str, model: str, steps: int, width: int, r_dim: int, beta: float) -> ConfigDict:
    """As `base`, with the recipe of IB-GAN's authors for CelebA and 3D Chairs, on data set `name`.

    `steps`, `width` (g = d), `r_dim` and `beta` are what differs between the two. The baselines GAN
    and InfoGAN share all that they can, and their z has as many dimensions as r; VAEs keep the
    recipe that they have on dSprites.

    Raises:
      UserError: no such model.
    """
    config = base(name, model)
    config.dataset.name = name
    if "noise_steps" not in config.hparams:
        return config
    config.train.update({"steps": steps, "evaluate_every": 10_000, "checkpoint_every": 10_000})
    config.network.update(
        {
            "generator_width": width,
            "discriminator_width": width,
            "shared_front": True,
            "initializer": "orthogonal",
            "z_dim": r_dim,
        }
    )
    noise = {"noise_start": 0.5, "noise_end": 0.01, "noise_steps": float(steps)}
    labels = {"label_low": 0.7, "label_high": 1.2}
    config.hparams.update({**noise, **labels, "lr_discriminator": 2e-6})
    if model == "ibgan":
        encoder = {"encoder_hidden": (64, 64, 32), "encoder_batch_norm": True}
        config.network.update({"z_dim": 64, "r_dim": r_dim, **encoder})
        config.hparams.beta = beta
    return config


def check(config: ConfigDict) -> None:
    """All that can be found wrong before any work starts.

    Raises:
      UserError: one line that names the key, its value and what is allowed.
    """
    missing = sorted(set(KEYS) - set(config))
    if missing:
        raise UserError(f"the config lacks {missing[0]!r}; every config has: {', '.join(KEYS)}")
    model = make_model(config)
    dataset = config.dataset
    data.check(dataset.name, dataset.source, dataset.resolution, dataset.mirror, dataset.painting)
    if dataset.resolution != model.image_shape[0]:
        raise UserError(
            f"dataset.resolution={dataset.resolution}: the networks of {config.model} are for "
            f"{model.image_shape[0]} x {model.image_shape[1]} pixels"
        )
    for key in ("steps", "batch_size", "steps_per_dispatch", *_PERIODS):
        if config.train[key] < 1:
            raise UserError(f"train.{key}={config.train[key]} must be 1 or more")
    if config.train.precision not in distributed.PRECISIONS:
        known = ", ".join(distributed.PRECISIONS)
        raise UserError(f"train.precision={config.train.precision!r} is not one of: {known}")
    try:
        formulation.choose("cpu", config.train.convolution, config.train.precision)
    except ValueError as error:
        raise UserError(f"train.convolution={error}") from error
    for key, seed in (("seed", config.seed), ("dataset.seed", config.dataset.seed)):
        if not 0 <= seed < 2**32:
            raise UserError(f"{key}={seed} must be between 0 and 2**32 - 1")
    _check_time(config)
    _check_fid(config)
    for key, value in config.hparams.items():
        if not math.isfinite(value) or value < 0:
            raise UserError(f"hparams.{key}={value} must be a finite number, 0 or more")
    model.check_hparams(config.hparams.to_dict())
    named = " and ".join(f"population.{key}" for key, x in varied(config).items() if x)
    for _, member in members(config):
        try:
            check(member)
        except UserError as error:
            raise UserError(f"{named} makes a member that cannot be: {error}") from error


def _check_time(config: ConfigDict) -> None:
    minutes, at_once = config.train.max_minutes, config.population[AT_ONCE]
    if not math.isfinite(minutes) or minutes < 0:
        raise UserError(
            f"train.max_minutes={minutes} must be a finite number, 0 (no limit) or more"
        )
    if at_once < -1:
        raise UserError(
            f"population.at_once={at_once} must be 0 (as many as fit in memory), more, or -1 (as "
            "many as finish within train.max_minutes)"
        )
    if at_once == -1 and not minutes:
        raise UserError("population.at_once=-1 needs train.max_minutes, within which they finish")


def _check_fid(config: ConfigDict) -> None:
    every, period = config.fid.every, config.train.evaluate_every
    if every < 0 or every % period:
        raise UserError(f"fid.every={every} must be 0 or a multiple of evaluate_every, {period}")
    if every and not config.fid.classifier:
        raise UserError("fid.every needs fid.classifier=PATH, as --classifier in the README")


def completed(recorded: dict[str, Any]) -> dict[str, Any]:
    """A recorded config with the keys that its version did not have yet, at their defaults.

    The defaults of new settings are what was done before there were any.
    """
    if recorded.get("model") not in models.NAMES:
        return recorded
    defaults = base(recorded.get("name", ""), recorded["model"]).to_dict()
    return _filled(recorded, {key: defaults[key] for key in KEYS})


def _filled(settings: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    missing = {key: value for key, value in defaults.items() if key not in settings}
    inside = {
        key: _filled(value, defaults[key])
        for key, value in settings.items()
        if isinstance(value, dict) and isinstance(defaults.get(key), dict)
    }
    return {**settings, **inside, **missing}


def make_model(config: ConfigDict, **facts: Any) -> models.Model:
    """The model with the network settings of the config, and those of `facts` that it has.

    Raises:
      UserError: an unknown model, or a setting that it does not have or that cannot be.
    """
    network = {k: tuple(v) if isinstance(v, list) else v for k, v in config.network.items()}
    fields = {field.name for field in dataclasses.fields(models.get(config.model))}
    return models.get(config.model, **network, **{k: facts[k] for k in fields & facts.keys()})


def steps_per_dispatch(config: ConfigDict, first_step: int) -> int:
    """K: the largest divisor of every period, and of the run, up to train.steps_per_dispatch."""
    train = config.train
    common = math.gcd(train.steps, first_step, *(train[key] for key in _PERIODS))
    limit = min(train.steps_per_dispatch, common)
    return next(k for k in range(limit, 0, -1) if common % k == 0)


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; tuples become lists, as JSON has them."""
    flat = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def same_program(one: ConfigDict, other: ConfigDict) -> bool:
    """Whether runs of both can train together: they differ in seed and hparams alone."""

    def static(config: ConfigDict) -> dict[str, Any]:
        return {key: x for key, x in config.to_dict().items() if key not in ("seed", "hparams")}

    return static(one) == static(other)


def check_same(recorded: dict[str, Any], config: ConfigDict, workdir: Any) -> None:
    """Refuses a workdir that another configuration made.

    Raises:
      UserError: names every key that differs, with both values.
    """
    old, new = flatten(recorded), flatten(config.to_dict())
    differing = [
        f"{key} (there {old.get(key, 'none')!r}, now {new.get(key, 'none')!r})"
        for key in sorted(old.keys() | new.keys())
        if key not in FREE_KEYS and old.get(key) != new.get(key)
    ]
    if differing:
        raise UserError(
            f"{workdir} holds a run of another configuration: {', '.join(differing)}; "
            "choose another --workdir"
        )
