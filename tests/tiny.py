"""A run small enough for tests: 180 images, networks of width 2, few votes.

As a program this is launch.py on that small scale, for tests that interrupt it.
"""

import contextlib
import functools
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)] * (str(ROOT) not in sys.path)

from configs import quickstart  # noqa: E402
from ibgan_jax import config as configs  # noqa: E402
from ibgan_jax import data  # noqa: E402
from ibgan_jax.data import sprites, variants  # noqa: E402
from ibgan_jax.data.feed import ResidentFeed  # noqa: E402
from ibgan_jax.data.sprite_dataset import SpriteDataset  # noqa: E402
from ibgan_jax.metrics import factor_vae  # noqa: E402
from ibgan_jax.training import evaluation, loop  # noqa: E402
from ibgan_jax.training.checkpoint import Checkpoints  # noqa: E402
from ibgan_jax.training.run import build  # noqa: E402
from ibgan_jax.training.telemetry import read_metrics  # noqa: E402
from ibgan_jax.training.workdir import Workdir  # noqa: E402

CONFIG = ROOT / "configs/quickstart.py"
FACTOR_SIZES = (3, 2, 5, 3, 2)
STEPS = 24
LOAD = data.load  # before `shrink` puts another in its place
SETTINGS = {
    "network.generator_width": 2,
    "network.discriminator_width": 2,
    "hparams.cascade_from": 4.0,  # so that every dimension of r begins
    "hparams.cascade_every": 4.0,
    "train.steps": STEPS,
    "train.batch_size": 8,
    "train.steps_per_dispatch": 2,
    "train.log_every": 4,
    "train.evaluate_every": 12,
    "train.checkpoint_every": 6,  # amid a window of log_every: checkpoints keep its values
}


def records():
    factors = np.stack(np.unravel_index(np.arange(180), FACTOR_SIZES), axis=-1)
    return np.packbits(sprites.render(factors), axis=-1).reshape(180, 512)


def load(name, source, directory, log=print, sharding=None, seed=0, painting="", **more):
    """`ibgan_jax.data.load` for one image in 4,096 of dSprites."""
    if not data.has_factors(name):
        return LOAD(name, source, directory, log, sharding, seed, painting, **more)
    data.check(name, source, **more)
    variant = variants.make(name, seed, painting)
    if source == "stream":
        from ibgan_jax.data.streaming import open_stream

        return open_stream(Path(directory), log, FACTOR_SIZES, records, name, variant, sharding)
    names = sprites.FACTOR_NAMES
    feed = ResidentFeed(records(), source, sharding)
    return SpriteDataset(feed, name, names, FACTOR_SIZES, variant, sharding)


def shrink(put=setattr):
    """Puts the small data set and few votes in place; `put` may be monkeypatch.setattr."""
    votes = factor_vae.VoteProtocol(40, 10, 200, 0.0)
    put(data, "load", load)
    put(factor_vae.factor_vae_score, "protocols", {"id_gan": votes})
    put(evaluation, "METRICS", ("factor_vae", "mig"))
    put(evaluation, "BOUND_DRAWS", 200)
    put(evaluation, "BOUND_BATCH", 100)


@contextlib.contextmanager
def quick(cache):
    """Inside, the small run is what `ibgan_jax` trains, compiled fast and only once."""
    # Unoptimised programs compile in a third of the time; results stay reproducible bit for bit.
    wanted = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(cache),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: jax.config.values[name] for name in wanted}
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        try:
            configure(wanted)
            yield
        finally:
            configure(before)


def configure(values):
    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX asks only at its first compilation whether there is one


def config(**changed):
    """The small run's; keys of `changed` have _ for the dot: train_steps=8."""
    made = quickstart.get_config()
    dotted = {key.replace("_", ".", 1): value for key, value in changed.items()}
    made.update_from_flattened_dict(SETTINGS | dotted)
    return made


def train(path, **changed):
    """Trains in this process and returns the lines that it logs."""
    lines = []
    loop.train(config(**changed), Workdir(path), lines.append)
    return lines


def command(workdir, **changed):
    """The arguments of launch.py for the run of `config(**changed)` in `workdir`."""
    flat = configs.flatten(config(**changed).to_dict())
    given = configs.flatten(quickstart.get_config().to_dict())
    settings = [f"--config.{k}={v}" for k, v in flat.items() if v != given[k]]
    return [f"--config={CONFIG}", f"--workdir={workdir}", *settings]


def start(arguments, cache, program=__file__):
    """A process of the small run, which compiles what this one does."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(len(jax.devices())),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, program, *arguments], env=environment, **pipes)


@functools.cache
def template():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        return build(config()).state_template()


def state(path, step=STEPS):
    """Every array of a checkpoint: name -> (dtype, shape, bytes)."""
    restored, found, _ = Checkpoints(Path(path) / "checkpoints").restore(template(), step)
    assert found == step
    return raw(restored)


def raw(state):
    """Every array of a state: name -> (dtype, shape, bytes)."""

    def content(x):
        keys = jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        data = np.asarray(jax.random.key_data(x) if keys else x)
        return str(x.dtype), x.shape, data.tobytes()

    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(where): content(x) for where, x in leaves}


def differing(one, other):
    """The names of the arrays that are not the same bit for bit."""
    return [name for name in one | other if one.get(name) != other.get(name)]


def metrics(path):
    """metrics.jsonl without what depends on the clock."""
    return [
        {tag: x for tag, x in record.items() if tag != "steps_per_second"}
        for record in read_metrics(Path(path) / "metrics.jsonl")
    ]


def scores(path):
    return Workdir(path).read_scores()


if __name__ == "__main__":
    shrink()
    runpy.run_path(str(ROOT / "launch.py"), run_name="__main__")
