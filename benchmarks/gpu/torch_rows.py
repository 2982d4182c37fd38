"""PyTorch's step on the same card: eager, compiled, and as one CUDA graph."""

from __future__ import annotations

import os
import time
from typing import Any

import jax
import numpy as np

from benchmarks.gpu.measure import REPEATS, STEPS
from ibgan_jax.errors import UserError

# How `benchmarks.pytorch.make_step` makes each, besides float32 and eager.
ROWS: dict[str, dict[str, bool]] = {
    "eager float32": {},
    "eager tf32": {"tf32": True},
    "eager bfloat16": {"bfloat16": True},
    "compile tf32": {"tf32": True, "compiled": True},
    "compile bfloat16": {"bfloat16": True, "compiled": True},
    "graph tf32": {"tf32": True, "captured": True},
    "graph bfloat16": {"bfloat16": True, "captured": True},
}


def train(name: str, width: int, images: np.ndarray) -> dict[str, Any]:
    """Times one of ROWS on images [B, 64, 64, 1] in [-1, 1].

    Returns:
      {"ms_a_member": the median of "ms"; "compile_s": of what comes before the first counted step}.

    Raises:
      UserError: PyTorch is not installed, or not for JAX's device.
    """
    try:
        import torch

        from benchmarks import pytorch
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed") from error
    cpu = jax.default_backend() == "cpu"
    if not cpu and not torch.cuda.is_available():
        raise UserError("PyTorch has no GPU here")
    start = time.perf_counter()
    x = torch.tensor(images, device="cpu" if cpu else "cuda").permute(0, 3, 1, 2)
    settings = {"bfloat16": False, **ROWS[name]}
    step = pytorch.make_step(width, x, os.cpu_count() or 1, **settings)

    def seconds(steps: int) -> float:
        before = time.perf_counter()
        for _ in range(steps):
            step()
        if not cpu:
            torch.cuda.synchronize()
        return time.perf_counter() - before

    seconds(STEPS // 5)
    compile_s = time.perf_counter() - start
    times = [1e3 * seconds(STEPS) / STEPS for _ in range(REPEATS)]
    return {"ms_a_member": float(np.median(times)), "ms": times, "compile_s": compile_s}
