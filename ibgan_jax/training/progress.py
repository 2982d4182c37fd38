"""How far training has come: a bar on a terminal, else a line for each log point."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tqdm import tqdm


class Progress:
    """Shows steps, speed and time left; a context manager that ends with `close`."""

    def __init__(
        self,
        first_step: int,
        last_step: int,
        log: Callable[[str], object] = print,
        figures: Sequence[str] = (),
    ) -> None:
        """From `first_step`, done before this launch, to `last_step`, done at the end.

        `log` takes each line that is not part of the bar; `figures` are the tags shown beside it,
        by default the first three of each record.
        """
        self._last_step, self._log, self._figures = last_step, log, tuple(figures)
        self._mark = (first_step, time.monotonic())
        self._rate = 0.0
        self._bar = _bar(first_step, last_step) if sys.stderr.isatty() else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def at(
        self, step: int, record: Mapping[str, float] | None = None, when: float | None = None
    ) -> None:
        """Moves the bar to `step`; with a `record` this is a log point, which sets the figures.

        Without a terminal each log point is one line instead. The speed is that since the log
        point before, evaluation and checkpoints included; `when`, by time.monotonic, says that the
        step was reached before now.
        """
        if record is not None:
            before, then = self._mark
            now = time.monotonic() if when is None else when
            if step > before and now > then:
                self._rate = (step - before) / (now - then)
                self._mark = (step, now)
        if self._bar is not None:
            self._bar.update(max(step - self._bar.n, 0))  # a record may come late
            if record is not None:
                self._bar.set_postfix_str("  ".join(self._figures_of(step, record)))
        elif record is not None:
            head = f"step {step}/{self._last_step}"
            self._log("  ".join([head, *self._figures_of(step, record)]))

    @property
    def rate(self) -> float:
        """Steps a second between the last two log points."""
        return self._rate

    def log(self, line: str) -> None:
        """Says `line` without tearing the bar."""
        if self._bar is None:
            self._log(line)
        else:
            with tqdm.external_write_mode():
                self._log(line)

    def close(self) -> None:
        """Leaves the bar where it is; a second call does nothing."""
        if self._bar is not None:
            self._bar.close()

    def _figures_of(self, step: int, record: Mapping[str, float]) -> list[str]:
        parts = []
        if self._rate > 0:
            left = (self._last_step - step) / self._rate
            parts = [f"{_speed(self._rate)} steps/s", f"{_duration(left)} left"]
        tags = [t for t in self._figures if t in record] if self._figures else list(record)[:3]
        return parts + [f"{tag} {float(record[tag]):.4g}" for tag in tags]


def _bar(first_step: int, last_step: int) -> tqdm:
    # tqdm's own speed is smoothed and restarts at a resume; ours stands in the postfix.
    layout = "{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}"
    return tqdm(
        total=last_step, initial=first_step, bar_format=layout, dynamic_ncols=True, file=sys.stderr
    )


def _speed(rate: float) -> str:
    """Formats steps a second."""
    if rate >= 100:
        return f"{rate:.0f}"
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _duration(seconds: float) -> str:
    """Formats seconds by their two largest units: 2d03h, 7h46m, 5m07s, 42s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
