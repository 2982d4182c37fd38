"""What every system offers to the train step, the metrics and the reports."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import optax

from ibgan_jax.errors import UserError

PyTree = Any
ByPlayer = dict[str, PyTree]
Hparams = dict[str, jax.Array]


class Model(Protocol):
    """A set of named players, each a Flax module with its own parameters and optimizer.

    The numbers in `hparams` are traced, so that changing one compiles nothing anew and a
    population can be `vmap`ped over them. A model is a frozen dataclass whose fields are its static
    settings; a field that names a fact of the data (`channels`, `dataset_size`) is set by the run.

    Attributes:
      players: in the order in which they are named everywhere.
      code_dim: d, dimensions of a code.
      hparams: the traced numbers' defaults.
      grid: the published values of the system's own weight, hparam -> values.
      recipe: defaults of the config's `train`, as published.
      batches: how many batches a step takes, stacked along the first axis of its images.
      headline: metrics shown beside the progress bar.
      share: what `bounds` calls the nats [d] that each dimension carries.
      symbol: the letter of a code's dimensions in pictures.
    """

    players: tuple[str, ...]
    code_dim: int
    hparams: dict[str, float]
    grid: dict[str, tuple[float, ...]]
    recipe: dict[str, Any]
    batches: int
    headline: tuple[str, ...]
    share: str
    symbol: str

    def check_hparams(self, hparams: dict[str, float]) -> None:
        """Raises UserError naming finite numbers, 0 or more each, that do not fit together."""

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
        self, variables: ByPlayer, key: jax.Array, images: jax.Array, hparams: Hparams
    ) -> dict[str, jax.Array]:
        """The model's information figures [] and its `share` [d], in nats, in evaluation mode.

        They are means over real images [B, H, W, C], or over as many draws of the model's own.
        """


@dataclasses.dataclass(frozen=True)
class Settings:
    """The static settings that every system has, and what follows from them.

    Attributes:
      z_dim: dimensions of the noise or the latent z.
      channels: of the 64 x 64 images.
    """

    z_dim: int = 10
    channels: int = 1

    def __post_init__(self) -> None:
        """Raises UserError naming a size among the settings that is not 1 or more."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            sizes = value if isinstance(value, tuple) else (value,)
            if any(type(size) is int and size < 1 for size in sizes):
                raise UserError(f"network.{field.name}={value} must be 1 or more")

    @property
    def code_dim(self) -> int:
        """Dimensions of a code: of z itself, where no encoder stands between it and the images."""
        return self.z_dim

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (64, 64, self.channels)
