"""Where a program's time goes, operation by operation, as the device itself records it."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

MOST = 60  # operations that are listed


def kernels(work: Callable[[], Any], steps: int) -> list[list[Any]]:
    """Profiles one call of `work`, which returns arrays and makes so many steps.

    Returns:
      [operation of the compiled program, its kernels a step, their microseconds a step], the most
      expensive MOST first, after a line ["all", ...] of the sums.

    Raises:
      ValueError: the profiler recorded no operation.
    """
    count, spent = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(work())
        for file in Path(folder).rglob("*.xplane.pb"):
            for operation, nanoseconds in _operations(
                jax.profiler.ProfileData.from_file(str(file))
            ):
                count[operation] += 1
                spent[operation] += nanoseconds
    if not count:
        raise ValueError("the profiler recorded no operation")
    lines = [["all", count.total() / steps, spent.total() / steps / 1e3]]
    for operation, nanoseconds in spent.most_common(MOST):
        lines.append([operation, count[operation] / steps, nanoseconds / steps / 1e3])
    return lines


def _operations(profile: Any) -> list[tuple[str, float]]:
    """(operation, nanoseconds) of each kernel. On a CPU, where there are none, of each thunk."""
    planes = list(profile.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")] or planes
    return [
        (str(stats["hlo_op"]), event.duration_ns)
        for plane in devices
        for line in plane.lines
        if not line.name.startswith("XLA")  # sums of kernels, derived from the streams
        for event in line.events
        if "hlo_op" in (stats := dict(event.stats))
    ]
