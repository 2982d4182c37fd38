"""One run of those that train together: what it records, scores, draws and saves by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ibgan_jax import distributed, reports
from ibgan_jax.errors import UserError, one_line
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.run import Run
from ibgan_jax.training.state import TrainState, all_finite
from ibgan_jax.training.telemetry import Telemetry, write_metrics
from ibgan_jax.training.workdir import Workdir

Log = Callable[[str], Any]


class DivergedError(Exception):
    """A loss or a parameter is no longer finite; the message names the step."""


class Member:
    """A run with its workdir, which is the same whether it trains alone or beside others.

    Attributes:
      run, workdir.
      step: steps done when this launch took it up.
      window: per-step metrics since the last log point, name -> values. It goes into checkpoints,
        so that a resumed run logs the means that an uninterrupted one does.
      diverged: what stopped it, if anything did; its last good checkpoint stays.
    """

    def __init__(self, run: Run, workdir: Workdir, log: Log) -> None:
        """Opens nothing yet."""
        self.run, self.workdir, self._log = run, workdir, log
        self.step = 0
        self.window: dict[str, list[float]] = {}
        self.diverged: DivergedError | None = None
        self._checkpoints = Checkpoints(workdir.checkpoints)
        self._telemetry: Telemetry | None = None

    def resume(self) -> TrainState:
        """The newest intact checkpoint's state, or the first one."""
        return self._take(self._checkpoints.restore(self.run.state_template(), log=self._log))

    @property
    def newest(self) -> int:
        """The step of the newest checkpoint, 0 is the start; all processes ask together."""
        return self._checkpoints.newest()

    @property
    def previous(self) -> int:
        """The step of the checkpoint before the newest; 0 is the start."""
        return [0, 0, *self._checkpoints.steps()][-2]

    def go_back(self) -> TrainState:
        """The state at `previous`; what was saved after it is dropped, to be made again.

        Raises:
          UserError: that checkpoint is damaged.
        """
        step, found = self.previous, None
        if step:
            found = self._checkpoints.restore(self.run.state_template(), step, self._log)
        self._checkpoints.drop_after(step)
        return self._take(found)

    def _take(self, found: tuple[TrainState, int, dict] | None) -> TrainState:
        if found is None:
            self.step, self.window = 0, {}
            return self.run.create_state()
        state, self.step, extra = found
        self.window = {name: list(column) for name, column in extra["window"].items()}
        # The checkpoint's copy has a checksum, metrics.jsonl may have been damaged since.
        if "records" in extra and distributed.is_main_process():
            write_metrics(self.workdir.metrics, extra["records"])
        return state

    def open(self) -> None:
        """Gets ready to be written to, by one of several processes."""
        if distributed.is_main_process():
            self.workdir.diverged.unlink(missing_ok=True)
            events = not self.run.config.train.light
            self._telemetry = Telemetry(
                self.workdir.path, first_step=self.step, log=self._log, events=events
            )

    def wait(self) -> None:
        """Returns when what was saved is on disk; UserError when the disk does not take it."""
        with self._saving():
            self._checkpoints.wait()

    def close(self) -> None:
        """Waits as `wait` does, and closes the files."""
        try:
            if self._telemetry is not None:
                self._telemetry.close()
        finally:
            with self._saving():
                self._checkpoints.close()

    @contextmanager
    def _saving(self) -> Iterator[None]:
        """Says in one line why a checkpoint was not saved: Orbax raises what it likes."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            # TensorStore says this after files' names in quotes and before its settings.
            said = one_line(error, longest=10_000).rpartition('": ')[2].partition(" [")[0]
            reason = getattr(error, "strerror", None) or said[:200]
            raise UserError(
                f"cannot save a checkpoint in {self.workdir.checkpoints} ({reason}); "
                "those before it stay, and the same command goes on from there"
            ) from error

    def add(self, step: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Takes per-step metrics [K] up to `step`; the first one not finite stops the member."""
        if self.diverged:
            return
        for name, column in metrics.items():
            self.window.setdefault(name, []).extend(column.tolist())
        for name, column in self.window.items():
            bad = next((i for i, value in enumerate(column) if not math.isfinite(value)), None)
            if bad is not None:
                at = step - len(column) + bad + 1
                self._stop(f"{name} is {column[bad]} at step {at}", at)
                return

    def means(self) -> dict[str, float]:
        """Over the window, which is then empty."""
        means = {name: float(np.mean(column)) for name, column in self.window.items()}
        self.window = {}
        return means

    def log(self, step: int, means: Mapping[str, float], rate: float) -> None:
        """Writes the record of a log point."""
        if self._telemetry is not None:
            self._telemetry.write(step, {**means, "steps_per_second": rate})

    def finite(self, step: int, state: TrainState) -> bool:
        """Whether the member goes on with `state`: a number that is not finite stops it."""
        if not bool(all_finite(state)):
            self._stop(f"a parameter is not finite after step {step}", step)
        return self.diverged is None

    def evaluated(
        self, step: int, record: Mapping[str, float], pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Writes what an evaluation has found, and its `pictures`."""
        if self._telemetry is not None:
            folder = self.workdir.figures / "progress"
            for name, picture in pictures.items():
                reports.save_png(folder / f"{name}-{step:08d}.png", picture, quick=True)
            self._telemetry.write(step, record, pictures)

    def save(self, step: int, state: TrainState, score: float | None) -> None:
        """Saves `state`, in the background, with its `score` if it has one.

        Raises:
          UserError: the disk does not take it.
        """
        records = [] if self._telemetry is None else list(self._telemetry.records)
        # A copy, for it is written while later steps are added.
        window = {name: list(column) for name, column in self.window.items()}
        extra = {"window": window, "records": records}
        with self._saving():
            self._checkpoints.save(step, state, score=score, extra=extra)

    def _stop(self, reason: str, step: int) -> None:
        self.diverged = DivergedError(
            f"{reason}; the last good checkpoint stays; try smaller learning rates"
        )
        record = {"step": step, "reason": reason}
        self.workdir.write_json(self.workdir.diverged, record)
