"""The train step: the same code for every model, dataset and feeder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
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


def make_train_steps(
    model: Model,
    decode: Callable[[Any, Any], jax.Array],
    state_sharding: jax.sharding.Sharding | None = None,
    metrics_sharding: jax.sharding.Sharding | None = None,
) -> Callable:
    """K steps of n members in one dispatch.

    Jitted (state [n], arrays, batches [n, K], hparams [n]) -> (state [n], metrics [n, K]): the
    leading axis of every leaf is the members'. `batches` has leaves [n, K, B, ...] as the dataset's
    `batches` yields them, `arrays` is what the dataset keeps on the device, and
    `decode(arrays, batch)` gives images [B, H, W, C]. The state is donated; results are placed by
    the shardings.
    """

    def one(state: TrainState, arrays: Any, batches: Any, hparams: Hparams) -> tuple:
        names: list[str] = []

        def body(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
            state, metrics = train_step(model, state, decode(arrays, batch), hparams)
            names[:] = metrics
            return state, jnp.stack(list(metrics.values()))  # one write a step for all of them

        state, rows = jax.lax.scan(body, state, batches)
        return state, dict(zip(names, rows.T, strict=True))

    def steps(state: TrainState, arrays: Any, batches: Any, hparams: Hparams) -> tuple:
        if len(state.step) == 1:  # spares XLA a batch dimension in every product
            alone = jax.tree.map(lambda x: x[0], (state, batches, hparams))
            return jax.tree.map(lambda x: x[None], one(alone[0], arrays, *alone[1:]))
        return jax.vmap(one, (0, None, 0, 0), spmd_axis_name="population")(
            state, arrays, batches, hparams
        )

    return jax.jit(steps, donate_argnums=0, out_shardings=(state_sharding, metrics_sharding))
