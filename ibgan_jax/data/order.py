"""The order in which training sees the examples: endless, reproducible, reachable at any step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MASK = 2**64 - 1


class Order:
    """An endless sequence of data set indices; every epoch is a fresh permutation of them all.

    The permutation of an epoch is a function of (seed, epoch) alone, so a run that resumes at
    any position sees exactly what an uninterrupted one does. It sorts raw Philox output rather
    than ask `Generator.permutation`, whose algorithm NumPy may change between versions.
    """

    def __init__(self, size: int, seed: int) -> None:
        """`size` examples an epoch; any integer `seed`. Raises ValueError when size < 1."""
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size
        self.seed = seed
        self._cache: dict[int, NDArray[np.int64]] = {}

    def indices(self, first: int, count: int) -> NDArray[np.int64]:
        """Indices at positions first .. first + count - 1: int64 [count].

        Raises ValueError when `first` or `count` is negative.
        """
        if first < 0 or count < 0:
            raise ValueError(f"first and count must not be negative, got {first} and {count}")
        parts = []
        while count > 0:
            epoch, offset = divmod(first, self.size)
            part = self._permutation(epoch)[offset : offset + count]
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        cache = self._cache
        if epoch in cache:
            return cache[epoch]
        key = ((epoch & _MASK) << 64) | (self.seed & _MASK)
        bits = np.random.Philox(key=key).random_raw(self.size)
        # Equal bits, were there any, fall in index order: a stable sort has one result.
        permutation = np.argsort(bits, kind="stable").astype(np.int64)
        # The neighbours stay, since a dispatch may straddle two epochs. The dict is replaced,
        # never changed, for the prefetching threads that may be reading it.
        kept = {e: p for e, p in cache.items() if abs(e - epoch) == 1}
        self._cache = {**kept, epoch: permutation}
        return permutation


def batch_indices(
    orders: Sequence[Order], step: int, steps: int, batch_size: int
) -> NDArray[np.int64]:
    """Indices for steps step .. step + steps - 1: int64 [len(orders), steps, batch_size].

    Step t takes positions t * batch_size .. (t + 1) * batch_size - 1 of each order.
    """
    rows = [order.indices(step * batch_size, steps * batch_size) for order in orders]
    return np.stack(rows).reshape(len(orders), steps, batch_size)
