"""What a run leaves in writing: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import functools
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibgan_jax.errors import UserError

METRICS = "metrics.jsonl"


class Telemetry:
    """Writes the records of one run; a context manager that ends with `close`.

    With several processes only the first one makes a Telemetry.

    Attributes:
      records: what metrics.jsonl holds so far, one for each step.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        first_step: int,
        log: Callable[[str], object] = print,
        events: bool = True,
    ) -> None:
        """Starts at `first_step` (0: anew; else a resume of the records up to that step).

        Args:
          workdir: the run's directory, made when missing.
          first_step: steps done before this launch.
          log: takes what there is to say.
          events: whether TensorBoard's are written too.

        Raises:
          UserError: the metrics.jsonl to be resumed holds a line that is no record.
        """
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / METRICS
        before = read_metrics(path) if first_step else []
        self.records = [record for record in before if record["step"] <= first_step]
        write_metrics(path, self.records)
        self._file = path.open("r+b")
        # Where the newest record starts: it may grow.
        self._tail = sum(len(_line(record)) for record in self.records[:-1])
        self._events = _open_events(workdir, first_step, log) if events else None

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(
        self,
        step: int,
        record: Mapping[str, float],
        images: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes numbers, and images as events: on disk when this returns.

        Writes for the same step make one record; later values replace earlier ones of the same
        tag. A number that is not finite becomes null in the file and is left out of the events.

        Args:
          step: not below that of the write before.
          record: tag ("a/b") -> number: Python's, NumPy's or a jax.Array of shape [].
          images: tag -> uint8 [H, W, C] with C of 1 or 3.

        Raises:
          ValueError: `step` is below the newest record's.
        """
        step, numbers = int(step), {tag: _number(x) for tag, x in record.items()}
        self._append({"step": step, **numbers})
        if self._events is None:
            return
        self._events.write(step, {tag: x for tag, x in numbers.items() if x is not None}, images)

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        events, self._events = self._events, None
        try:
            self._file.close()
        finally:
            if events is not None:
                events.close()

    def _append(self, record: dict[str, Any]) -> None:
        newest = self.records[-1]["step"] if self.records else -1
        if record["step"] < newest:
            raise ValueError(f"step {record['step']} comes after the record of step {newest}")
        if record["step"] == newest:
            record = self.records.pop() | record
        else:
            self._tail = self._file.seek(0, os.SEEK_END)
        # Not held back until the step changes: a run killed after its checkpoint would lose it.
        self._file.seek(self._tail)
        self._file.write(_line(record))
        self._file.truncate()
        self._file.flush()
        self.records.append(record)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the records of a metrics.jsonl, one per step; [] when there is no file.

    A last line that was torn by a kill is left out.

    Raises:
      UserError: any other line is not a JSON record with an integer `step`.
    """
    if not Path(path).exists():
        return []
    lines = Path(path).read_bytes().splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if not isinstance(record["step"], int):
                raise TypeError
            records.append(record)
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines):
                message = f"{path}, line {number}: not a JSON record with an integer step"
                raise UserError(message) from error
    return records


def write_metrics(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Makes `records` the content of a metrics.jsonl, atomically."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.writelines(_line(record) for record in records)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _number(value: Any) -> float | int | None:
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


class _Events:
    """TensorBoard events, on disk when `write` returns.

    Not by tensorboardX's SummaryWriter: where a disk is full, its thread dies and the run hangs as
    soon as its queue is full.
    """

    def __init__(self, workdir: Path, first_step: int) -> None:
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2

        self._summary, self._proto = summary, event_pb2
        self._writer = event_file_writer.EventsWriter(str(workdir / "events"))
        # TensorBoard then hides what an earlier launch wrote beyond the step resumed from.
        start = self._proto.SessionLog(status=self._proto.SessionLog.START)
        self._add(first_step + 1 if first_step else 0, session_log=start)

    def write(
        self, step: int, numbers: Mapping[str, float], images: Mapping[str, np.ndarray] | None
    ) -> None:
        for tag, number in numbers.items():
            self._add(step, summary=self._summary.scalar(tag, number))
        for tag, image in (images or {}).items():
            colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
            self._add(step, summary=self._summary.image(tag, colour, dataformats="HWC"))
        self._writer.flush()

    def _add(self, step: int, **content: Any) -> None:
        event = self._proto.Event(wall_time=time.time(), step=step, **content)
        self._writer.write_event(event)

    def close(self) -> None:
        self._writer.close()


def _open_events(workdir: Path, first_step: int, log: Callable[[str], object]) -> _Events | None:
    try:
        return _Events(workdir, first_step)
    except ImportError:
        _say_no_events(log)
        return None


@functools.cache  # said once, not by every member of a population
def _say_no_events(log: Callable[[str], object]) -> None:
    log("tensorboardX is not installed: no TensorBoard events, metrics.jsonl has the numbers")
