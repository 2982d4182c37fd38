"""Training from start or checkpoint to the end, interruptible at any moment."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.data.order import Order
from ibgan_jax.errors import UserError
from ibgan_jax.training import evaluation, reporting
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.run import Run, build
from ibgan_jax.training.state import TrainState
from ibgan_jax.training.step import make_train_steps
from ibgan_jax.training.telemetry import Telemetry
from ibgan_jax.training.workdir import Workdir, environment

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Log = Callable[[str], Any]


class DivergedError(Exception):
    """A loss or a parameter is no longer finite; the message names the step."""


class InterruptedRunError(Exception):
    """A signal asked the run to stop; its state is saved."""


def train(config: ConfigDict, workdir: Workdir, log: Log = print) -> None:
    """Trains to `config.train.steps`, taking up a run that `workdir` already holds, and reports.

    Raises:
      UserError: anything the user can put right, before any work starts.
      DivergedError: a loss is not finite; the last good checkpoint stays.
      InterruptedRunError: after SIGINT or SIGTERM, with the state saved.
    """
    configs.check(config)
    recorded = workdir.recorded()
    if recorded is not None and Checkpoints(workdir.checkpoints).steps():
        configs.check_same(recorded["config"], config, workdir.path)
    workdir.create()
    run = build(config, log)
    workdir.write_json(workdir.config, {"config": config.to_dict(), **environment()})
    checkpoints = Checkpoints(workdir.checkpoints)
    try:
        with _stop_signals() as stop:
            _Training(run, workdir, checkpoints, stop, log).run_to_end()
    finally:
        checkpoints.close()
    reporting.finish(run, workdir, log)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turns SIGINT and SIGTERM into a question; the second one acts at once."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if received:
            signal.signal(number, signal.default_int_handler)
            raise KeyboardInterrupt
        received.append(number)

    kinds = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {kind: signal.signal(kind, note) for kind in kinds}
    except ValueError:  # not the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


class _Window:
    """Per-step metrics since the last log point: dispatched, on the device, fetched at log time.

    It goes into checkpoints, so that a resumed run logs the means that an uninterrupted one does.
    """

    def __init__(self, values: dict[str, list[float]]) -> None:
        self._fetched = {name: list(column) for name, column in values.items()}
        self._pending: list[dict[str, jax.Array]] = []

    def add(self, metrics: dict[str, jax.Array]) -> None:
        self._pending.append(metrics)

    def fetch(self, step: int) -> dict[str, list[float]]:
        """Per-step values up to `step`. Raises DivergedError at the first that is not finite."""
        for metrics in jax.device_get(self._pending):
            for name, column in metrics.items():
                self._fetched.setdefault(name, []).extend(column.tolist())
        self._pending = []
        for name, column in self._fetched.items():
            bad = next((i for i, value in enumerate(column) if not math.isfinite(value)), None)
            if bad is not None:
                raise DivergedError(
                    f"{name} is {column[bad]} at step {step - len(column) + bad + 1}; "
                    "the last good checkpoint stays; try smaller learning rates"
                )
        return self._fetched

    def close(self, step: int) -> dict[str, float]:
        """Means over the window, which is then empty."""
        means = {name: float(np.mean(column)) for name, column in self.fetch(step).items()}
        self._fetched = {}
        return means


@dataclasses.dataclass
class _Training:
    """One process's way from the first to the last step."""

    run: Run
    workdir: Workdir
    checkpoints: Checkpoints
    stop: Callable[[], bool]
    log: Log

    def run_to_end(self) -> None:
        run, train = self.run, self.run.config.train
        state, first, window = self._start()
        if first >= train.steps:
            self.log(f"{self.workdir.path} has {first} of {train.steps} steps: nothing to train")
            return
        images = train.batch_size * run.model.batches
        per_dispatch = configs.steps_per_dispatch(run.config, first)
        steps = make_train_steps(run.model, run.dataset.decode)
        batches = run.dataset.batches(
            Order(run.dataset.size, run.config.seed),
            first,
            train.steps,
            per_dispatch,
            images,
            distributed.process_part(images),
        )
        with Telemetry(
            self.workdir.path,
            first_step=first,
            last_step=train.steps,
            log=self.log,
            figures=run.model.headline,
        ) as telemetry:
            step, before = first, None
            for batch in batches:
                batch = distributed.put_batch(run.mesh, batch)
                state, metrics = steps(state, run.dataset.arrays, batch, run.hparams)
                window.add(metrics)
                step += per_dispatch
                # One dispatch ahead: the device never waits for the host, nor the bar far behind.
                jax.block_until_ready(before)
                before = metrics
                telemetry.progress(step)
                self._at(step, state, window, telemetry)

    def _start(self) -> tuple[TrainState, int, _Window]:
        """The newest checkpoint's state, or the first one."""
        found = self.checkpoints.restore(self.run.state_template(), log=self.log)
        if found is None:
            return self.run.create_state(), 0, _Window({})
        state, step, extra = found
        self.log(f"resuming {self.workdir.path} at step {step}")
        return state, step, _Window(extra["window"])

    def _at(self, step: int, state: TrainState, window: _Window, telemetry: Telemetry) -> None:
        """What is due at `step`: logging, evaluation, checkpoint, stop."""
        train = self.run.config.train
        last = step == train.steps
        stopping = self.stop()
        score = None
        if last or step % train.log_every == 0:
            record = window.close(step)
            telemetry.progress(step, record)
            telemetry.write(step, {**record, "steps_per_second": telemetry.rate})
        if last or step % train.evaluate_every == 0:
            self._check_finite(step, state)
            score = self._evaluate(step, state, telemetry)
        if last or score is not None or stopping or step % train.checkpoint_every == 0:
            self._save(step, state, window, score)
        if stopping and not last:
            self.checkpoints.wait()
            raise InterruptedRunError(f"stopped and saved at step {step}; the same command goes on")

    def _evaluate(self, step: int, state: TrainState, telemetry: Telemetry) -> float:
        score = evaluation.score(self.run, state.variables, evaluation.TRAINING_KEY)
        pictures = evaluation.progress_images(self.run, state, self.workdir.figures / "progress")
        record = {evaluation.SCORE: score.value, "score/active_dimensions": len(score.active)}
        telemetry.write(step, record, pictures)
        return score.value

    def _save(self, step: int, state: TrainState, window: _Window, score: float | None) -> None:
        values = window.fetch(step)
        self._check_finite(step, state)
        try:
            self.checkpoints.save(step, state, score=score, extra={"window": values})
        except OSError as error:
            raise UserError(
                f"cannot save a checkpoint in {self.workdir.checkpoints} ({error.strerror})"
            ) from error

    def _check_finite(self, step: int, state: TrainState) -> None:
        if not bool(_all_finite(state)):
            raise DivergedError(
                f"a parameter is not finite after step {step}; the last good checkpoint stays; "
                "try smaller learning rates"
            )


@jax.jit
def _all_finite(state: TrainState) -> jax.Array:
    leaves = jax.tree.leaves((state.params, state.batch_stats, state.optimizer))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))
