"""The train step: the same code for every model, dataset and feeder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from ibgan_jax.models.base import Hparams, Model
from ibgan_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def train_step(
    model: Model, state: TrainState, images: jax.Array, hparams: Hparams
) -> tuple[TrainState, Metrics]:
    """One alternating update: all gradients at one point, then every player's optimizer."""
    hparams = model.schedule(hparams, state.step)
    key = jax.random.fold_in(state.key, state.step)
    gradients, batch_stats, metrics = model.gradients(
        state.params, state.batch_stats, images, key, hparams
    )
    params, optimizer = {}, {}
    for player, transform in model.optimizers(hparams).items():
        updates, optimizer[player] = transform.update(
            gradients[player], state.optimizer[player], state.params[player]
        )
        params[player] = optax.apply_updates(state.params[player], updates)
    state = state.replace(
        step=state.step + 1, params=params, batch_stats=batch_stats, optimizer=optimizer
    )
    return state, metrics


def make_train_steps(model: Model, decode: Callable[[Any, Any], jax.Array]) -> Callable:
    """K steps in one dispatch: jitted (state, arrays, batches, hparams) -> (state, metrics [K]).

    `batches` has leaves [K, B, ...] as the dataset's `batches` yields them, `arrays` is what the
    dataset keeps on the device, and `decode(arrays, batch)` gives images [B, H, W, C]. The state
    is donated.
    """

    def steps(state: TrainState, arrays: Any, batches: Any, hparams: Hparams) -> tuple:
        def body(state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
            return train_step(model, state, decode(arrays, batch), hparams)

        return jax.lax.scan(body, state, batches)

    return jax.jit(steps, donate_argnums=0)
