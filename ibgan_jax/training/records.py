"""What training records, done in its order: at once, or beside the steps in one thread."""

from __future__ import annotations

import collections
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ibgan_jax.training.timing import Timing

# Copies of every member's state that wait or are worked on at a time: two evaluations.
EVALUATIONS = 2
# Pieces that wait at a time.
LONGEST = 200

Work = Callable[[], Any]


class Records:
    """Takes pieces of work and does one after the other; a context manager.

    Beside the steps a thread does them, so that the device has its next steps meanwhile. What goes
    wrong there is raised at the next `hand_over` or `drain`, and the pieces after it are dropped.
    Otherwise each piece is done within `hand_over`.
    """

    def __init__(self, beside: bool, members: int, timing: Timing) -> None:
        """`members` train together: as many states are copied for an evaluation."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="records") if beside else None
        self._limit, self._timing = EVALUATIONS * members, timing
        self._waiting: collections.deque[tuple[Future, int]] = collections.deque()
        self._failed = False

    def __enter__(self) -> Records:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self._pool is None:
            return
        try:
            if kind is None:
                self.drain()
        finally:
            # The piece at work is waited for, since it writes to files that are closed next.
            self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def beside(self) -> bool:
        """Whether they are done beside the steps."""
        return self._pool is not None

    @property
    def copies(self) -> int:
        """How many copies of states wait to be recorded, at most."""
        return sum(copies for _, copies in self._waiting)

    def make_room(self, copies: int) -> None:
        """Returns when so many more copies of states may be taken."""
        self._until(lambda: self.copies + copies <= self._limit)

    def hand_over(self, work: Work, copies: int = 0) -> None:
        """Has `work` done after all that was handed over before; it holds so many `copies`.

        Raises:
          Exception: what went wrong in this piece, or in one before it.
        """
        if self._pool is None:
            work()
            return
        self._until(lambda: len(self._waiting) < LONGEST)
        while self._waiting and self._waiting[0][0].done():
            self._waiting[0][0].result()
            self._waiting.popleft()
        self._waiting.append((self._pool.submit(self._do, work), copies))

    def drain(self) -> None:
        """Returns when everything is done.

        Raises:
          Exception: what went wrong.
        """
        self._until(lambda: not self._waiting)

    def _do(self, work: Work) -> None:
        if self._failed:
            return
        try:
            work()
        except BaseException:
            self._failed = True
            raise

    def _until(self, enough: Callable[[], bool]) -> None:
        while self._waiting and not enough():
            with self._timing.waiting():
                self._waiting[0][0].result()
            self._waiting.popleft()
