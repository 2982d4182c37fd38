"""How a data set's records reach the step: lying on the device, or read as training goes."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from ibgan_jax import distributed

Batch = dict[str, Any]

# Reading a whole dispatch at once is what makes it fast (measured on two cores: 64 records a
# call 15 k sprites/s, 3200 a call 113 k), so few threads and a short queue suffice.
_THREADS = 2
_PREFETCHED_DISPATCHES = 4
# Dispatches whose indices are made ahead, a few KiB each: some 30 ms of an accelerator's time each.
_INDICES_AHEAD = 32


class Feed(Protocol):
    """N records uint8 [bytes], numbered from 0.

    Attributes:
      source: what `dataset.source` calls it.
      arrays: what `records` reads on the device besides the batch.
    """

    source: str
    arrays: dict[str, jax.Array]

    def __len__(self) -> int:
        """N."""

    def lookup(self, index: NDArray[np.int32]) -> Batch:
        """What the step takes for records [...] besides their index; host arrays."""

    def records(self, arrays: dict[str, jax.Array], batch: Batch, index: jax.Array) -> jax.Array:
        """The records uint8 [..., bytes] at `index` int [...] of a batch; pure JAX."""

    def ahead(self, load: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
        """`load(step)` for each of `steps`, read before it is asked for where that helps."""


class ResidentFeed:
    """All records on the device; a batch is just its indices."""

    def __init__(
        self,
        records: NDArray[np.uint8],
        source: str = "resident",
        sharding: jax.sharding.Sharding | None = None,
    ) -> None:
        """Put `records` uint8 [N, bytes] on the default device, or wherever `sharding` says."""
        self.source = source
        self.arrays = distributed.place({"records": records}, sharding)

    def __len__(self) -> int:
        return len(self.arrays["records"])

    def lookup(self, index: NDArray[np.int32]) -> Batch:
        """Nothing more."""
        del index
        return {}

    def records(self, arrays: dict[str, jax.Array], batch: Batch, index: jax.Array) -> jax.Array:
        """Rows of the array on the device."""
        del batch
        # The range is checked on the host; "clip" spares the default's masking of what is outside.
        return jnp.take(arrays["records"], index, axis=0, mode="clip")

    def ahead(self, load: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
        """One thread makes them in their order: a new epoch of all seeds takes it a second."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="indices")
        waiting: collections.deque[Future[Batch]] = collections.deque()
        try:
            for step in steps:
                waiting.append(pool.submit(load, step))
                if len(waiting) > _INDICES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class Reader(Protocol):
    """Random access to records on disk; threads may share it."""

    def __len__(self) -> int:
        """N."""

    def read(self, indices: list[int]) -> NDArray[np.uint8]:
        """Records of `indices` (any order, repeats allowed): uint8 [len(indices), bytes]."""


class StreamedFeed:
    """Records that stay on disk: a batch brings its own along."""

    source = "stream"

    def __init__(self, reader: Reader) -> None:
        self.arrays: dict[str, jax.Array] = {}
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def lookup(self, index: NDArray[np.int32]) -> Batch:
        """{"record": uint8 [..., bytes]}, read from disk."""
        records = self._reader.read(index.reshape(-1).tolist())
        return {"record": records.reshape(*index.shape, -1)}

    def records(self, arrays: dict[str, jax.Array], batch: Batch, index: jax.Array) -> jax.Array:
        """What the batch brought."""
        del arrays, index
        return batch["record"]

    def ahead(self, load: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
        """Threads of Grain read ahead while the device works.

        Each element of the pipeline is a whole dispatch and a function of its first step alone, so
        no iterator state need be saved: the first step is the position.
        """
        import grain

        if not steps:
            return iter(())
        options = grain.ReadOptions(
            num_threads=_THREADS, prefetch_buffer_size=_PREFETCHED_DISPATCHES
        )
        source = grain.MapDataset.range(steps.start, steps.stop, steps.step)
        return iter(source.map(lambda step: load(int(step))).to_iter_dataset(options))
