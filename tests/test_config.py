"""Settings: the paper's, every experiment's first step, and what makes two runs the same."""

import importlib
import math
import re

import jax
import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from ibgan_jax import config as configs
from ibgan_jax import data, distributed, models
from ibgan_jax.errors import UserError
from ibgan_jax.training.run import build
from ibgan_jax.training.step import make_train_steps

# The files of many runs are looked at by themselves, here and in test_study.py.
MANY = {"table1", "beta_sweep"}
FILES = sorted({p.stem for p in (tiny.ROOT / "configs").glob("*.py")} - MANY)
ALIKE = ("color_dsprites_uniform", "noisy_dsprites", "scream_dsprites")
OTHERS = ("factor_vae", "infogan", "beta_vae")
PERIODS = ("log_every", "evaluate_every", "checkpoint_every")
every = pytest.mark.parametrize(
    ("name", "model"), [(name, model) for name in FILES for model in models.NAMES]
)


def get(name, model="ibgan"):
    return importlib.import_module(f"configs.{name}").get_config(model)


def test_dsprites_is_the_papers_run():
    config = get("dsprites").to_dict()
    assert config["model"] == "ibgan"
    assert config["network"] == {
        "z_dim": 16,
        "r_dim": 10,
        "generator_width": 16,
        "discriminator_width": 16,
        "encoder_hidden": (32, 32),
        "encoder_batch_norm": False,
        "shared_front": False,
        "initializer": "normal",
        "arc": False,
        "pixel_shuffle": False,
        "shift": (0.0, 0.0),
        "zoom": 0.0,
        "noise_for_d": 1.0,
    }
    assert config["hparams"] == {
        "beta": 0.141,
        "lr_encoder": 5e-5,
        "lr_generator": 5e-5,
        "lr_reconstructor": 5e-5,
        "lr_discriminator": 1e-6,
        "momentum": 0.9,
        "noise_start": 1.0,
        "noise_end": 0.0,
        "noise_steps": 100_000.0,
        "late_noise": 0.0,
        "late_noise_steps": 0.0,
        "late_rates": 1.0,
        "late_rate_for_d": 1.0,
        "late_rates_from": 0.0,
        "late_rates_steps": 0.0,
        "label_low": 1.0,
        "label_high": 1.0,
        "information": 1.0,
        "kl_guard": 100.0,
        "kl_guard_above": 20.0,
        "capacity": 0.0,
        "capacity_steps": 1.0,
        "cascade_first": 2.0,
        "cascade_from": 0.0,
        "cascade_every": 0.0,
        "cascade_last": 0.0,
        "cascade_noise": 1.0,
        "cascade_sideways": 1.0,
    }
    assert (config["train"]["batch_size"], config["train"]["steps"]) == (64, 150_000)
    assert (config["dataset"]["name"], config["dataset"]["source"]) == ("dsprites", "resident")


def test_the_beta_sweep_is_the_papers():
    config = get("beta_sweep")
    np.testing.assert_allclose(config.population.beta, np.linspace(0, 0.99, 15), atol=1e-6)
    assert config.population.seeds == tuple(range(10))
    base = get("dsprites").to_dict() | {"name": "beta_sweep"}
    assert {**config.to_dict(), "population": base["population"]} == base
    assert len(configs.members(config)) == 150


@every
def test_every_config_has_the_common_keys(name, model):
    config = get(name, model)
    assert (config.name, config.model) == (name, model)
    assert {"seed", "network", "dataset", "train", "hparams", "grid", "population"} <= set(config)
    assert {"name", "source", "dir"} <= set(config.dataset)
    assert {"steps", "batch_size", *PERIODS} <= set(config.train)
    assert set(config.population) == {"at_once", "draws", "seeds", *config.hparams}
    assert not any(config.population.values())
    with pytest.raises((AttributeError, KeyError)):
        config.train.step = 5
    if name != "celeba_hq":
        configs.check(config)


def test_no_system_has_networks_for_celeba_hq_yet():
    with pytest.raises(UserError, match=r"resolution=1024: .* of ibgan are for 64 x 64 pixels"):
        configs.check(get("celeba_hq"))


@every
def test_every_config_keeps_its_periods(name, model):
    config = get(name, model)
    k = configs.steps_per_dispatch(config, 0)
    assert k == config.train.steps_per_dispatch
    assert all(config.train[key] % k == 0 for key in ("steps", *PERIODS))
    # Scores belong to checkpoints, and the loop makes one wherever it evaluates.
    assert config.train.evaluate_every % config.train.log_every == 0


@pytest.mark.parametrize(
    ("name", "model"),
    [
        # Of those on dSprites that differ in how it is shown alone, one will do.
        pytest.param(name, "ibgan", marks=[pytest.mark.slow] * name.startswith(ALIKE))
        for name in FILES
        if name not in data.image_sets.NAMES
    ]
    # FactorVAE is trained in test_systems.py; the others are each much like one that stays.
    + [
        pytest.param("dsprites", m, marks=[pytest.mark.slow] * (m in OTHERS))
        for m in models.NAMES
        if m != "ibgan"
    ],
)
def test_every_config_and_every_model_take_a_step(name, model, small):
    config = get(name, model)
    config.train.batch_size = 4
    for key in {"generator_width", "discriminator_width"} & set(config.network):
        config.network[key] = 2
    run = build(config, log=lambda line: None)
    before = jax.device_get(run.create_state().params)
    batch = run.dataset.lookup(np.arange(4 * run.model.batches)[None, None])
    steps = make_train_steps(run.model, run.dataset.decode)
    state, hparams = (distributed.stack(run.mesh, x) for x in (run.create_state(), run.hparams))
    state, metrics = steps(state, run.dataset.arrays, batch, hparams)
    state = distributed.member(run.mesh, state, 0)
    assert int(state.step) == 1
    for name, values in metrics.items():
        assert values.shape == (1, 1) and np.isfinite(values).all(), name
    for player in run.model.players:
        old, new = jax.tree.leaves(before[player]), jax.tree.leaves(state.params[player])
        assert all(np.isfinite(array).all() for array in new), player
        assert any((a != np.asarray(b)).any() for a, b in zip(old, new, strict=True)), player


numbers = st.integers(1, 10_000)


@given(numbers, numbers, numbers, numbers, st.integers(0, 10_000), st.integers(1, 50))
def test_steps_per_dispatch_is_the_largest_that_fits(steps, log, evaluate, save, first, limit):
    config = tiny.config(
        train_steps=steps,
        train_log_every=log,
        train_evaluate_every=evaluate,
        train_checkpoint_every=save,
        train_steps_per_dispatch=limit,
    )
    fits = [
        k
        for k in range(1, limit + 1)
        if all(number % k == 0 for number in (steps, log, evaluate, save, first))
    ]
    assert configs.steps_per_dispatch(config, first) == max(fits)


def test_flatten():
    nested = {"a": {"b": {"c": 1}, "d": (2, 3)}, "e": "x", "f": {}, "g": ()}
    assert configs.flatten(nested) == {"a.b.c": 1, "a.d": [2, 3], "e": "x", "g": []}


def differing(recorded, config):
    """The keys that `check_same` names."""
    try:
        configs.check_same(recorded, config, "there/run")
    except UserError as error:
        assert str(error).startswith("there/run holds a run of another configuration: ")
        return re.findall(r"([\w.]+) \(there ", str(error))
    return []


def test_the_same_settings_are_the_same():
    assert differing(tiny.config().to_dict(), tiny.config()) == []
    free = tiny.config(train_steps=10**6, dataset_dir="/elsewhere")
    assert differing(tiny.config().to_dict(), free) == []


FLAT = configs.flatten(tiny.config().to_dict())
BOUND = sorted(set(FLAT) - set(configs.FREE_KEYS))


@given(st.sets(st.sampled_from(BOUND), max_size=5))
def test_exactly_the_differing_keys_are_named(keys):
    recorded = tiny.config().to_dict()
    for key in keys:
        *parents, last = key.split(".")
        node = recorded
        for parent in parents:
            node = node[parent]
        node[last] = "another"
    assert differing(recorded, tiny.config()) == sorted(keys)


def test_keys_that_only_one_side_has_differ():
    recorded = tiny.config().to_dict()
    recorded["train"]["old"] = 1
    del recorded["network"]["initializer"]
    assert differing(recorded, tiny.config()) == ["network.initializer", "train.old"]


def test_a_record_older_than_a_setting_has_its_default():
    recorded = tiny.config(seed=3).to_dict()
    del recorded["train"]["precision"], recorded["dataset"]["mirror"], recorded["grid"]
    completed = configs.completed(recorded)
    assert differing(completed, tiny.config(seed=3)) == []
    assert differing(completed, tiny.config(seed=3, dataset_seed=1)) == ["dataset.seed"]
    assert configs.completed({"model": "of tomorrow"}) == {"model": "of tomorrow"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", 0),
        ("train.batch_size", -1),
        ("train.steps_per_dispatch", 0),
        ("train.log_every", 0),
        ("train.evaluate_every", -5),
        ("train.checkpoint_every", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("hparams.lr_encoder", -1e-9),
        ("hparams.beta", math.inf),
        ("hparams.noise_end", math.nan),
        ("hparams.noise_steps", 0.0),
        ("hparams.late_rates", 0.0),
        ("hparams.late_rate_for_d", 0.5),
        ("hparams.late_noise", 0.2),
        ("hparams.label_low", 1.5),
        ("hparams.momentum", 1.0),
        ("population.seeds", (0, -1)),
        ("population.seeds", (2, 2)),
        ("population.seeds", (0.5,)),
        ("population.beta", ("much",)),
        ("population.beta", (0.1, 0.10000001)),
        ("network.shift", (2.0, -1.0)),
        ("network.shift", (2.0,)),
        ("hparams.cascade_first", 1.5),
        ("hparams.cascade_first", 0.0),
        ("hparams.capacity_steps", 0.0),
        ("network.zoom", math.inf),
        ("network.noise_for_d", -0.5),
        ("train.precision", "half"),
        ("population.beta", (0.1, -0.1)),
        ("population.draws", -1),
        ("population.draws", 3),
    ],
)
def test_wrong_values_are_named(key, value):
    config = tiny.config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError) as caught:
        configs.check(config)
    assert key in str(caught.value) and "\n" not in str(caught.value)


def test_a_shared_front_sees_one_image():
    config = tiny.config()
    config.network.update({"shared_front": True, "shift": (2.0, 0.0)})
    with pytest.raises(UserError, match=r"shift=\(2\.0, 0\.0\), .* network\.shared_front=False"):
        configs.check(config)


@pytest.mark.parametrize("key", ["lr_generator", "beta", "noise_start", "label_low"])
def test_zero_is_a_value(key):
    config = tiny.config()
    config.hparams[key] = 0.0
    configs.check(config)


def test_unknown_model_in_a_config():
    with pytest.raises(UserError, match=f"'nothing'.*{', '.join(models.NAMES)}"):
        get("dsprites", "nothing")
