"""The time that a launch may take, and what must still fit into it."""

from __future__ import annotations

import math
import time

from ibgan_jax import distributed
from ibgan_jax.training import timing
from ibgan_jax.training.timing import Timing

# Pieces that are timed besides the phases: from a population's start, or from that of those of it
# that fit together, to its first dispatch.
START, GROUP = "start", "group"
# What a piece may take longer than the longest so far.
MARGIN = 1.5
# Seconds that pieces are guessed to take before one was measured: (the first, each further one),
# and the part of the limit that none is guessed to exceed. A report is what its two pages take
# besides their scores.
GUESSES = {
    timing.SCORES: (15.0, 5.0, 0.1),
    timing.SAVES: (2.0, 1.0, 0.02),
    timing.PICTURES: (2.0, 0.5, 0.02),
    timing.REPORT: (20.0, 7.0, 0.2),
    timing.TABLE: (5.0, 5.0, 0.1),
}
# A report that was planned is still made where it is likely to end so many seconds late.
GRACE = 5.0


class TimeIsUpError(Exception):
    """The limit is reached and everything is saved; the message says how far the work has come.

    Attributes:
      began: whether this launch came to do anything, so that the same command would go on.
    """

    def __init__(self, message: str, began: bool = True) -> None:
        super().__init__(message)
        self.began = began


class Deadline:
    """The limit of `train.max_minutes`, counted from the moment that `timing` counts from.

    Attributes:
      minutes: 0 is no limit.
      timing: measures this launch, by which the deadline is kept.
      kept: seconds that the caller needs afterwards.
    """

    def __init__(self, minutes: float, timing: Timing) -> None:
        """Nothing is kept yet."""
        self.minutes, self.timing, self.kept = minutes, timing, 0.0
        self._cold = 0.0

    def left(self) -> float:
        """Seconds until the work must be done; infinite without a limit."""
        if not self.minutes:
            return math.inf
        return self.timing.started + 60 * self.minutes - time.monotonic() - self.kept

    def estimate(self, piece: str, count: int = 1) -> float:
        """Seconds that `count` pieces will take: of what was measured, with a margin, or a guess.

        A kind that is neither measured nor guessed, as a start before the first, takes none.
        """
        if count < 1:
            return 0.0
        measured = self.timing.measured(piece)
        if measured is not None:
            longest, mean = measured
            return MARGIN * (longest + (count - 1) * mean)
        first, further, share = GUESSES.get(piece, (0.0, 0.0, 0.0))
        guess = min(first + (count - 1) * further, share * 60 * self.minutes * count)
        if piece == timing.REPORT:
            guess += self.estimate(timing.SCORES, 2 * count) + self._cold
        return guess

    def likely(self, piece: str, count: int = 1) -> float:
        """Seconds that `count` pieces will take if they are as the others, without a margin.

        Half of a guess, which is on the safe side too (the report of four members in seven minutes
        on an H200: guessed 44 s, took 19).
        """
        measured = self.timing.measured(piece)
        return self.estimate(piece, count) / 2 if measured is None else count * measured[1]

    def allows_report(self) -> bool:
        """Whether one more report is likely to be done about in time; all processes ask together.

        What margins and guesses leave is there to be used.
        """
        return not self.reached(self.likely(timing.REPORT) - GRACE)

    def learn_compiling(self) -> None:
        """Until a report is measured, its programs are guessed to compile as long as the step did.

        (On two cores, of a run of width 2: 11 s for the step, 12 for what the report needs.)
        """
        self._cold, _ = self.timing.measured(timing.COMPILING) or (0.0, 0.0)

    def reached(self, seconds: float = 0.0) -> bool:
        """Whether less than `seconds` are left, as the main process of the job sees it.

        All processes must ask at the same points.
        """
        return bool(self.minutes) and distributed.agreed(self.left()) <= seconds

    def error(self, reached: str) -> TimeIsUpError:
        """`reached` says how far the work has come."""
        limit = f"train.max_minutes={self.minutes:g}"
        if self.timing.began:
            return TimeIsUpError(f"{reached} ({limit}); the same command goes on")
        taken = time.monotonic() - self.timing.started
        return TimeIsUpError(
            f"{reached}: {limit} is too short, for it took {taken:.0f} s to come to the first step",
            began=False,
        )
