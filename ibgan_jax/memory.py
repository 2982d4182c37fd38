"""How much memory the devices have left."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from ibgan_jax import distributed


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of the fullest device; of the machine, and of this process, where that is a CPU."""

    used: int
    free: int


def available() -> Memory | None:
    """Returns what memory the process with the least has; None where that cannot be known."""
    mine = _here()
    if distributed.processes() == 1:
        return mine
    from jax.experimental import multihost_utils

    figures = [mine.used, mine.free] if mine else [0, -1]
    every = multihost_utils.process_allgather(np.array(figures, np.float64) / distributed.MIB)
    used, free = (int(x * distributed.MIB) for x in min(every.tolist(), key=lambda row: row[1]))
    return None if free < 0 else Memory(used, free)


def _here() -> Memory | None:
    local = jax.local_devices()
    figures = [device.memory_stats() for device in local]
    if all(figures):
        fullest = min(figures, key=lambda stats: stats["bytes_limit"] - stats["bytes_in_use"])
        used = fullest["bytes_in_use"]
        return Memory(used, fullest["bytes_limit"] - used)
    if local[0].platform != "cpu":  # with some allocators; the host's memory is not the device's
        return None
    try:
        used, free = _kib("/proc/self/status", "VmRSS"), _kib("/proc/meminfo", "MemAvailable")
    except OSError:
        return None
    return Memory(used * 1024, free * 1024)


def _kib(file: str, name: str) -> int:
    fields = dict(line.split(":", 1) for line in Path(file).read_text().splitlines())
    return int(fields[name].split()[0])
