"""How much time is left, and whether it is enough for one row more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType


class Budget:
    """Seconds from now on, and the most that a piece of work of each kind took so far."""

    def __init__(
        self,
        seconds: float,
        guesses: Mapping[str, float] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`guesses` are the seconds that kinds are taken to need before any was done."""
        self._clock, self._start = clock, clock()
        self._end = self._start + seconds
        self._guesses, self._slowest = guesses, {}

    @property
    def used(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """Seconds, negative when they are overdrawn."""
        return self._end - self._clock()

    def fits(self, kind: str) -> bool:
        """Whether the slowest piece of this kind, compiled and measured, would still fit.

        Of a kind that was neither done nor guessed, the slowest of any kind.
        """
        any_kind = max(self._slowest.values(), default=0.0)
        guess = self._guesses.get(kind, any_kind)
        return self.left > self._slowest.get(kind, guess)

    @contextmanager
    def spent_on(self, kind: str) -> Iterator[None]:
        """Records what the piece of work inside took, failed or not."""
        start = self._clock()
        try:
            yield
        finally:
            taken = self._clock() - start
            self._slowest[kind] = max(taken, self._slowest.get(kind, 0.0))
