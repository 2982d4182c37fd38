"""What every system offers to the train step, the metrics and the reports."""

from __future__ import annotations

from typing import Any, Protocol

import jax
import optax

PyTree = Any
ByPlayer = dict[str, PyTree]
Hparams = dict[str, jax.Array]


class Model(Protocol):
    """A set of named players, each a Flax module with its own parameters and optimizer.

    The numbers in `hparams` are traced, so that changing one compiles nothing anew and a
    population can be `vmap`ped over them.
    """

    players: tuple[str, ...]
    code_dim: int
    hparams: dict[str, float]
    headline: tuple[str, ...]

    def init(self, key: jax.Array) -> ByPlayer:
        """Variables {player: {"params": ..., "batch_stats": ...}}."""

    def schedule(self, hparams: Hparams, step: jax.Array) -> Hparams:
        """The hyperparameters in force at `step` (0 is the first)."""

    def optimizers(self, hparams: Hparams) -> dict[str, optax.GradientTransformation]:
        """One optimizer for each player, built from traced numbers."""

    def gradients(
        self,
        params: ByPlayer,
        batch_stats: ByPlayer,
        images: jax.Array,
        key: jax.Array,
        hparams: Hparams,
    ) -> tuple[ByPlayer, ByPlayer, dict[str, jax.Array]]:
        """(one gradient pytree for each player, new batch_stats, scalar metrics), at one point."""

    def generate(self, variables: ByPlayer, codes: jax.Array) -> jax.Array:
        """Codes [B, d] -> images [B, H, W, C] in [-1, 1], BatchNorm in evaluation mode."""

    def represent(self, variables: ByPlayer, images: jax.Array) -> jax.Array:
        """Images [B, H, W, C] in [-1, 1] -> codes [B, d], deterministic."""

    def bounds(
        self, variables: ByPlayer, key: jax.Array, count: int, hparams: Hparams
    ) -> dict[str, jax.Array]:
        """Means over `count` draws of the model's information figures, in evaluation mode."""
