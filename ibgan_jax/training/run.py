"""A run's parts, built from its config: what training, evaluation and reports have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
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
        shapes = jax.eval_shape(partial(_create, self.model), self._seed, self.hparams)
        sharding = distributed.replicated(self.mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
        )

    def create_state(self) -> TrainState:
        """The state before the first step, on the mesh."""
        state = _create(self.model, self._seed, self.hparams)
        return jax.device_put(state, distributed.replicated(self.mesh))

    @property
    def _seed(self) -> np.ndarray:
        return np.asarray(self.config.seed, np.uint32)

    @property
    def represent(self) -> Callable[[ByPlayer, jax.Array], jax.Array]:
        """Jitted (variables, images) -> codes."""
        return partial(_represent, self.model)

    @property
    def generate(self) -> Callable[[ByPlayer, jax.Array], jax.Array]:
        """Jitted (variables, codes) -> images."""
        return partial(_generate, self.model)


# The model is hashed by its settings: runs of equal models share what is compiled.
@partial(jax.jit, static_argnums=0)
def _create(model: Model, seed: jax.Array, hparams: Hparams) -> TrainState:
    return states.create(model, seed, hparams)


@partial(jax.jit, static_argnums=0)
def _represent(model: Model, variables: ByPlayer, images: jax.Array) -> jax.Array:
    return model.represent(variables, images)


@partial(jax.jit, static_argnums=0)
def _generate(model: Model, variables: ByPlayer, codes: jax.Array) -> jax.Array:
    return model.generate(variables, codes)


def _hparams(config: ConfigDict, mesh: Mesh) -> Hparams:
    sharding = distributed.replicated(mesh)
    return {k: jax.device_put(jnp.float32(x), sharding) for k, x in config.hparams.items()}


def build(config: ConfigDict, log: Callable[[str], Any] = print, members: int = 1) -> Run:
    """Checks the config, finds the devices for so many members, and loads (or renders) the data.

    Raises:
      UserError: anything in the config or on the machine that stands in the way, in one line.
    """
    configs.check(config)
    mesh = distributed.mesh_for(members)
    distributed.check_precision(config.train.precision)
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
    )
    model = configs.make_model(config, channels=dataset.image_shape[-1], dataset_size=dataset.size)
    return Run(config, model, dataset, mesh, _hparams(config, mesh))
