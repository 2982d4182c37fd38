"""A run's parts, built from its config: what training, evaluation and reports have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
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

    def state_template(self) -> TrainState:
        """The state's shapes, dtypes and shardings, without making it."""
        shapes = jax.eval_shape(self._create)
        sharding = distributed.replicated(self.mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
        )

    def create_state(self) -> TrainState:
        """The state before the first step, on the mesh."""
        return jax.jit(self._create, out_shardings=distributed.replicated(self.mesh))()

    def _create(self) -> TrainState:
        return states.create(self.model, self.config.seed, self.hparams)

    @cached_property
    def represent(self) -> Callable[[ByPlayer, jax.Array], jax.Array]:
        """Jitted (variables, images) -> codes."""
        return jax.jit(self.model.represent)

    @cached_property
    def generate(self) -> Callable[[ByPlayer, jax.Array], jax.Array]:
        """Jitted (variables, codes) -> images."""
        return jax.jit(self.model.generate)


def build(config: ConfigDict, log: Callable[[str], Any] = print) -> Run:
    """Checks the config, finds the devices, and loads (or renders) the data.

    Raises:
      UserError: anything in the config or on the machine that stands in the way, in one line.
    """
    configs.check(config)
    mesh = distributed.make_mesh()
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
    hparams = {
        key: jax.device_put(jnp.float32(value), distributed.replicated(mesh))
        for key, value in config.hparams.items()
    }
    return Run(config, model, dataset, mesh, hparams)
