"""Where the wall time of a launch went, and how long its pieces take."""

from __future__ import annotations

import collections
import contextlib
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ibgan_jax.training.workdir import Workdir

STEPS, COMPILING, SCORES, SAVES = "steps", "compiling", "scores", "saves"
PICTURES, REPORT, OTHER = "pictures", "report", "other"
PHASES = (STEPS, COMPILING, SCORES, SAVES, PICTURES, REPORT)
TABLE = "table"  # a kind of report: that of a study
LASTING = (SCORES, SAVES, PICTURES, REPORT, TABLE)  # what one launch tells of the next
# A piece that once took long, as on a disk that was busy, is forgotten after so many others.
REMEMBERED = 20


class Timing:
    """Seconds of each phase since `started`: of the thread that trains, and of others beside it.

    What another thread does while the first one waits for it counts as the first one's time.

    Attributes:
      started: the moment, by time.monotonic, that the wall time is counted from.
    """

    def __init__(self, started: float | None = None) -> None:
        """`started` is now by default. The thread that makes it is the one that trains."""
        self.started = time.monotonic() if started is None else started
        self._thread = threading.current_thread()
        self._main = dict.fromkeys(PHASES, 0.0)
        self._beside = dict.fromkeys(PHASES, 0.0)
        self._waited, self._waiting_since = 0.0, None
        self._begun: dict[str, float] = {}
        self._pieces: dict[str, collections.deque[float]] = {}
        self._before: Mapping[str, Any] = {}

    @contextlib.contextmanager
    def phase(self, name: str, count: int = 1, piece: str | None = None) -> Iterator[None]:
        """Inside is one of PHASES: `count` pieces of the same kind, `name` or else `piece`."""
        start, waited = time.monotonic(), self._wait_so_far()
        try:
            yield
        finally:
            self._add(name, time.monotonic() - start, self._wait_so_far() - waited)
        self.note(piece or name, (time.monotonic() - start) / count, count)

    def _add(self, name: str, seconds: float, waited: float) -> None:
        if threading.current_thread() is self._thread:
            self._main[name] += seconds
        else:
            seen = min(waited, seconds)
            self._main[name] += seen
            self._beside[name] += seconds - seen

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the thread that trains waits for what others do."""
        self._waiting_since = time.monotonic()
        try:
            yield
        finally:
            self._waited, self._waiting_since = self._wait_so_far(), None

    def _wait_so_far(self) -> float:
        since = self._waiting_since
        return self._waited + (0.0 if since is None else time.monotonic() - since)

    def note(self, piece: str, seconds: float, count: int = 1) -> None:
        """Remembers that `count` pieces took so long each."""
        kept = self._pieces.setdefault(piece, collections.deque(maxlen=REMEMBERED))
        kept.extend([seconds] * min(count, REMEMBERED))

    def begin(self, *pieces: str) -> None:
        """The first one of each of these kinds to `end` starts now."""
        self._begun |= dict.fromkeys(pieces, time.monotonic())

    def end(self, *pieces: str) -> None:
        """Notes those of these kinds that have begun."""
        for piece in self._begun.keys() & set(pieces):
            self.note(piece, time.monotonic() - self._begun.pop(piece))

    def forget(self, piece: str) -> None:
        """What it took is no guide to what it will take."""
        self._pieces.pop(piece, None)

    def measured(self, piece: str) -> tuple[float, float] | None:
        """(longest, mean) seconds of the last pieces of a kind; None if none is known.

        For scores and what follows them, those of the launch before serve until there is one of
        this launch; what comes before depends on what is compiled already.
        """
        if kept := self._pieces.get(piece):
            return max(kept), statistics.fmean(kept)
        before = self._before.get("pieces", {}).get(piece) if piece in LASTING else None
        return None if before is None else (before["longest_s"], before["mean_s"])

    def learn(self, workdir: Workdir) -> None:
        """Takes over what earlier launches in `workdir` recorded, if anything legible is there."""
        try:
            record = json.loads(workdir.timing.read_text())
            numbers = [record["launches"], record["wall_s"]]
            numbers += [record["phases_s"][name] for name in (*PHASES, OTHER)]
            numbers += [record["beside_s"][name] for name in PHASES]
            numbers += [
                x[key] for x in record["pieces"].values() for key in ("longest_s", "mean_s")
            ]
            if all(isinstance(x, int | float) for x in numbers):
                self._before = record
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return

    def as_dict(self) -> dict[str, Any]:
        """What timing.json holds: sums over all launches, and the last one's pieces."""
        wall, phases = self._now()
        before = self._before
        sums = {name: before.get("phases_s", {}).get(name, 0) + x for name, x in phases.items()}
        beside = {
            name: before.get("beside_s", {}).get(name, 0) + x for name, x in self._beside.items()
        }
        pieces = {kind: x for kind in LASTING if (x := self.measured(kind))}
        return {
            "launches": before.get("launches", 0) + 1,
            "wall_s": before.get("wall_s", 0) + wall,
            "phases_s": sums,
            "beside_s": beside,
            "pieces": {k: {"longest_s": x[0], "mean_s": x[1]} for k, x in pieces.items()},
        }

    @property
    def trained(self) -> bool:
        """Whether there were steps."""
        return self._main[STEPS] > 0

    @property
    def began(self) -> bool:
        """Whether there were steps, or reports of steps made before."""
        return self.trained or self._main[REPORT] > 0

    def __str__(self) -> str:
        wall, phases = self._now()
        shown = []
        for name, seconds in phases.items():
            hidden = self._beside.get(name, 0.0)
            beside = f" (and {hidden:.0f} beside the steps)" if hidden >= 0.5 else ""
            shown.append(f"{name} {seconds:.0f}{beside}")
        return f"wall time {wall:.0f} s: {', '.join(shown)}"

    def _now(self) -> tuple[float, dict[str, float]]:
        """The wall time and the phases, with what is in none of them."""
        wall = time.monotonic() - self.started
        return wall, {**self._main, OTHER: max(wall - sum(self._main.values()), 0.0)}


@contextlib.contextmanager
def accounting(timing: Timing, workdir: Workdir, log: Callable[[str], Any]) -> Iterator[None]:
    """Learns from `workdir`'s earlier launches; says and records, however it ends, where time went.

    Nothing is said of a launch that did not come to train.
    """
    timing.learn(workdir)
    try:
        yield
    finally:
        if timing.trained:
            log(str(timing))
            workdir.write_json(workdir.timing, timing.as_dict())
