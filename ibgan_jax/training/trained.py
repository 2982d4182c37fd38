"""What scores and pictures need of a run: its variables, from a checkpoint or from weights.npz."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.errors import UserError
from ibgan_jax.models.base import ByPlayer
from ibgan_jax.training import weights
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.run import Run
from ibgan_jax.training.state import TrainState, all_finite
from ibgan_jax.training.workdir import Workdir

Log = Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Trained:
    """Variables as models take them, on the run's mesh.

    Attributes:
      variables: {player: {"params", "batch_stats"}}; None for arrays that weights.npz leaves out.
      step: the steps of training behind them.
      weights: the SHA-256 that their weights.npz records; None when they are a checkpoint's.
    """

    variables: ByPlayer
    step: int
    weights: str | None = None


def only_weights(workdir: Workdir) -> bool:
    """Whether a folder has weights.npz instead of checkpoints."""
    return workdir.weights.exists() and not Checkpoints(workdir.checkpoints).steps()


def steps(workdir: Workdir) -> list[int]:
    """The steps at which a folder can be scored, ascending.

    Raises:
      UserError: it has weights.npz instead of checkpoints, and that is damaged.
    """
    if only_weights(workdir):
        return [weights.record(workdir.weights)["step"]]
    return Checkpoints(workdir.checkpoints).steps()


def check_step(workdir: Workdir, step: int | None) -> None:
    """Finds out now whether `restore` has what it needs.

    Raises:
      UserError: the folder can be scored at no step, or not at `step`.
    """
    there = steps(workdir)
    if not there:
        raise UserError(f"{workdir.path} holds no checkpoint yet; train first")
    if step not in (None, *there):
        where = workdir.weights if only_weights(workdir) else workdir.checkpoints
        raise UserError(f"no checkpoint {step} in {where}; there are: {there}")


def restore(run: Run, workdir: Workdir, step: int | None, log: Log) -> Trained:
    """The newest variables in a workdir, or those of `step`.

    Raises:
      UserError: there are none, they hold a number that is not finite, or weights.npz is damaged
        or of another run.
    """
    check_step(workdir, step)
    if not only_weights(workdir):
        state = checkpointed(run.state_template(), workdir, step, log)
        return Trained(state.variables, int(state.step))
    record = weights.record(workdir.weights)
    configs.check_same(configs.completed(record["config"]), run.config, workdir.weights)
    variables = distributed.place(
        weights.unpack(workdir.weights, run.model), distributed.replicated(run.mesh)
    )
    return Trained(variables, record["step"], record["sha256"])


def checkpointed(template: TrainState, workdir: Workdir, step: int | None, log: Log) -> TrainState:
    """The newest state in a workdir, or the one of `step`; it needs a checkpoint.

    Raises:
      UserError: it is damaged, or holds a number that is not finite.
    """
    checkpoints = Checkpoints(workdir.checkpoints)
    try:
        state, step, _ = checkpoints.restore(template, step, log)
    finally:
        checkpoints.close()
    if not bool(all_finite(state)):
        raise UserError(
            f"{workdir.checkpoints / str(step)} holds a parameter that is not finite: "
            "nothing can be said of it; name another with --step=N"
        )
    return state
