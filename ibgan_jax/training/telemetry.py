"""What a run leaves in writing: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ibgan_jax.errors import UserError

METRICS = "metrics.jsonl"


class Telemetry:
    """Writes the records of one run; a context manager that ends with `close`.

    With several processes only the first one makes a Telemetry.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        first_step: int,
        log: Callable[[str], object] = print,
    ) -> None:
        """Starts at `first_step` (0: anew; else a resume of the records up to that step).

        Args:
          workdir: the run's directory, made when missing.
          first_step: steps done before this launch.
          log: takes what there is to say.

        Raises:
          UserError: the metrics.jsonl to be resumed holds a line that is no record.
        """
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        path = workdir / METRICS
        self._record: dict[str, Any] = {}
        kept = [r for r in read_metrics(path) if r["step"] <= first_step] if first_step else []
        lines = [_line(r) for r in kept]
        _replace(path, b"".join(lines))
        self._file = path.open("r+b")
        self._tail = sum(map(len, lines))  # where the newest record starts: it may grow
        if kept:
            self._record, self._tail = kept[-1], self._tail - len(lines[-1])
        self._events = _event_writer(workdir, first_step, log)

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
        for tag, number in numbers.items():
            if number is not None:
                self._events.add_scalar(tag, number, step)
        for tag, image in (images or {}).items():
            colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
            self._events.add_image(tag, colour, step, dataformats="HWC")
        self._events.flush()

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        self._file.close()
        if self._events is not None:
            self._events.close()
            self._events = None

    def _append(self, record: dict[str, Any]) -> None:
        newest = self._record.get("step", -1)
        if record["step"] < newest:
            raise ValueError(f"step {record['step']} comes after the record of step {newest}")
        if record["step"] == newest:
            record = self._record | record
        else:
            self._tail = self._file.seek(0, os.SEEK_END)
        # Not held back until the step changes: a run killed after its checkpoint would lose it.
        self._file.seek(self._tail)
        self._file.write(_line(record))
        self._file.truncate()
        self._file.flush()
        self._record = record


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


def _number(value: Any) -> float | int | None:
    if isinstance(value, int | np.integer):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _event_writer(workdir: Path, first_step: int, log: Callable[[str], object]) -> Any | None:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        log("tensorboardX is not installed: no TensorBoard events, metrics.jsonl has the numbers")
        return None
    # TensorBoard then hides what an earlier launch wrote beyond the step resumed from.
    return SummaryWriter(str(workdir), purge_step=first_step + 1 if first_step else 0)
