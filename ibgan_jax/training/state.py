"""The one struct of arrays that a run is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from ibgan_jax.models.base import ByPlayer, Hparams, Model


@struct.dataclass
class TrainState:
    """Everything that training changes, keyed by player; arrays only.

    Attributes:
      step: int32, steps done.
      key: the run's root key; each step folds its number into it.
      params, batch_stats, optimizer: keyed by player.
    """

    step: jax.Array
    key: jax.Array
    params: ByPlayer
    batch_stats: ByPlayer
    optimizer: ByPlayer

    @property
    def variables(self) -> ByPlayer:
        """{player: {"params", "batch_stats"}}, as models take them."""
        return {
            player: {"params": self.params[player], "batch_stats": self.batch_stats[player]}
            for player in self.params
        }


@jax.jit
def all_finite(state: TrainState) -> jax.Array:
    """Whether no parameter, statistic or moment is NaN or infinite: bool []."""
    leaves = jax.tree.leaves((state.params, state.batch_stats, state.optimizer))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def create(model: Model, seed: int | jax.Array, hparams: Hparams) -> TrainState:
    """The state before the first step, a function of the seed alone."""
    key, init_key = jax.random.split(jax.random.key(seed))
    variables = model.init(init_key)
    optimizers = model.optimizers(hparams)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=key,
        params={player: parts["params"] for player, parts in variables.items()},
        batch_stats={player: parts["batch_stats"] for player, parts in variables.items()},
        optimizer={p: optimizers[p].init(parts["params"]) for p, parts in variables.items()},
    )
