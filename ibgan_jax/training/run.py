"""A run's parts, built from its config: what training, evaluation and reports have in common."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from ibgan_jax import config as configs
from ibgan_jax import data, distributed
from ibgan_jax.data.dataset import Dataset
from ibgan_jax.models.base import ByPlayer, Hparams, Model
from ibgan_jax.training import state as states
from ibgan_jax.training.state import TrainState

if TYPE_CHECKING:
    from ml_collections import ConfigDict


@dataclasses.dataclass(frozen=True)
class Run:
    """The model, the dataset, the mesh and the numbers of one run."""

    config: ConfigDict
    model: Model
    dataset: Dataset
    mesh: Mesh
    hparams: Hparams

    def of(self, config: ConfigDict) -> Run:
        """The run of a config that differs from this one's in its seed and hparams alone."""
        return dataclasses.replace(self, config=config, hparams=_hparams(config, self.mesh))

    def state_template(self) -> TrainState:
        """The state's shapes, dtypes and shardings, without making it."""
        return _template(self.model, self.mesh, self._seed, self.hparams)

    def create_state(self) -> TrainState:
        """The state before the first step, on the mesh."""
        create = _creator(distributed.replicated(self.mesh))
        return create(self.model, self._seed, self.hparams)

    @property
    def _seed(self) -> np.ndarray:
        return np.asarray(self.config.seed, np.uint32)

    @property
    def represent(self) -> Callable[[ByPlayer, jax.Array], jax.Array]:
        """Jitted (variables, images) -> codes."""
        return partial(_represent, self.model, distributed.Spread(self.mesh))

    @property
    def generate(self) -> Callable[[ByPlayer, jax.Array], jax.Array]:
        """Jitted (variables, codes) -> images."""
        return partial(_generate, self.model, distributed.Spread(self.mesh))


def template(config: ConfigDict) -> tuple[Model, TrainState]:
    """The model of a run's config and its state's template on one device, without the data set.

    Raises:
      UserError: a model, network setting or data set that cannot be.
    """
    mesh, dataset = distributed.mesh_for(1), config.dataset
    channels = data.channels(dataset.name, dataset.resolution)
    model = configs.make_model(config, channels=channels)
    seed = np.asarray(config.seed, np.uint32)
    return model, _template(model, mesh, seed, _hparams(config, mesh))


def _template(model: Model, mesh: Mesh, seed: np.ndarray, hparams: Hparams) -> TrainState:
    sharding = distributed.replicated(mesh)
    shapes = _creator(sharding).eval_shape(model, seed, hparams)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)


# The model is hashed by its settings: runs of equal models share what is compiled.
@functools.cache
def _creator(sharding: jax.sharding.Sharding) -> Callable[..., TrainState]:
    # It runs once: on a CPU level 1 compiles it in half the time, and its bits are level 3's.
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    return jax.jit(
        states.create, static_argnums=0, out_shardings=sharding, compiler_options=options
    )


# Each device takes its share of a batch, and all have the result.
@partial(jax.jit, static_argnums=(0, 1))
def _represent(
    model: Model, spread: distributed.Spread, variables: ByPlayer, images: jax.Array
) -> jax.Array:
    return spread.gather(model.represent(variables, spread.share(images)))


@partial(jax.jit, static_argnums=(0, 1))
def _generate(
    model: Model, spread: distributed.Spread, variables: ByPlayer, codes: jax.Array
) -> jax.Array:
    return spread.gather(model.generate(variables, spread.share(codes)))


def _hparams(config: ConfigDict, mesh: Mesh) -> Hparams:
    numbers = {key: np.float32(x) for key, x in config.hparams.items()}
    return distributed.place(numbers, distributed.replicated(mesh))


def build(config: ConfigDict, log: Callable[[str], Any] = print, members: int = 1) -> Run:
    """Checks the config, finds the devices for so many members, and loads (or renders) the data.

    Raises:
      UserError: anything in the config or on the machine that stands in the way, in one line.
    """
    configs.check(config)
    mesh = distributed.mesh_for(members)
    # Scores and pictures are exact whatever the steps are; accelerators round unless told not to.
    jax.config.update("jax_default_matmul_precision", distributed.PRECISIONS[distributed.EXACT])
    distributed.check_batch(mesh, config.train.batch_size)
    dataset = data.load(
        config.dataset.name,
        config.dataset.source,
        Path(config.dataset.dir).expanduser(),
        log=log,
        sharding=distributed.replicated(mesh),
        seed=config.dataset.seed,
        painting=config.dataset.painting,
        resolution=config.dataset.resolution,
        mirror=config.dataset.mirror,
    )
    model = configs.make_model(config, channels=dataset.image_shape[-1], dataset_size=dataset.size)
    return Run(config, model, dataset, mesh, _hparams(config, mesh))
