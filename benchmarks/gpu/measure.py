"""The figures of one row: programs that train, scores, and what the card can do at most."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.gpu import profile
from benchmarks.gpu.plan import Row
from benchmarks.step import BATCH, random_records
from ibgan_jax import config as configs
from ibgan_jax import data, distributed, metrics
from ibgan_jax.data import sprites
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.sprite_dataset import SpriteDataset
from ibgan_jax.errors import one_line
from ibgan_jax.networks import formulation
from ibgan_jax.training import codes, evaluation
from ibgan_jax.training.population import Programs
from ibgan_jax.training.run import Run

REPEATS, STEPS = 3, 50
SPRITES = math.prod(sprites.FACTOR_SIZES)
GIB = 2**30


@contextlib.contextmanager
def on_one_device(rehearse: bool) -> Iterator[None]:
    """All members in one program on the first device, whatever others there are.

    A rehearsal on a CPU does as an accelerator does, but in float32 where a CPU has no other
    product.
    """
    first = distributed.devices()[:1]
    with contextlib.ExitStack() as patches:
        patches.enter_context(mock.patch.object(distributed, "devices", lambda: first))
        if rehearse:
            patches.enter_context(
                mock.patch.object(distributed, "members_together", lambda mesh, members: members)
            )
            patches.enter_context(mock.patch.object(codes, "many_at_once", lambda mesh: True))
            exact = dict.fromkeys(distributed.PRECISIONS, distributed.PRECISIONS[distributed.EXACT])
            patches.enter_context(mock.patch.dict(distributed.PRECISIONS, exact))
        yield


def base_run(width: int, images: int = SPRITES) -> Run:
    """IB-GAN's run at width g = d, on so many random images that lie on the device.

    With as many as dSprites has, its programs are those of training on dSprites: what is compiled
    here is not compiled again there, where JAX_COMPILATION_CACHE_DIR keeps it.
    """
    config = configs.base("benchmark", "ibgan")
    config.network.update({"generator_width": width, "discriminator_width": width})
    config.train.batch_size = BATCH
    everywhere = distributed.replicated(distributed.mesh_for(1))
    feed = ResidentFeed(random_records(images), sharding=everywhere)
    dataset = SpriteDataset(feed, "random", ("index",), (len(feed),), sharding=everywhere)
    run = _run(config, dataset)
    run.create_state()  # compiled once for all rows, so that none is charged for it
    return run


def _run(config: Any, dataset: SpriteDataset) -> Run:
    hparams = {key: jnp.float32(value) for key, value in config.hparams.items()}
    return Run(config, configs.make_model(config), dataset, distributed.mesh_for(1), hparams)


def members_of(run: Run, count: int) -> list[Run]:
    """The runs of a population of so many seeds; the run itself for one."""
    config = run.config.copy_and_resolve_references()
    config.population.seeds = tuple(range(count)) if count > 1 else ()
    return [run.of(member) for _, member in configs.members(config)] or [run]


def train(run: Run, row: Row, profiled: bool = False) -> dict[str, Any]:
    """Compiles a row's program as training does and times its steps.

    Returns:
      {"ms_a_member": the median of REPEATS, "ms": all of them, each of about STEPS steps after one
      dispatch that is not counted; "compile_s"; "state_mib" of a member; "work_mib" of a dispatch;
      if it is `profiled`, "kernels": of one dispatch more, see `profile.kernels`}.
    """
    config = run.config.copy_and_resolve_references()
    config.train.convolution, config.train.precision = row.convolution, row.precision
    config.train.update(dict.fromkeys(("steps", "steps_per_dispatch"), row.steps))
    config.train.update({f"{key}_every": row.steps for key in ("log", "evaluate", "checkpoint")})
    start = time.perf_counter()
    runs = members_of(dataclasses.replace(run, config=config), row.members)
    program = Programs(runs[0]).of(row.members, 0)
    compile_s = time.perf_counter() - start
    hparams = distributed.stack(program.mesh, *(member.hparams for member in runs))
    state = distributed.stack(program.mesh, *(member.create_state() for member in runs))
    shape = (row.members, row.steps, config.train.batch_size)
    examples = run.dataset.lookup(np.arange(np.prod(shape)).reshape(shape) % run.dataset.size)

    def dispatches(state: Any, count: int) -> Any:
        for _ in range(count):
            batch = distributed.put_batch(program.mesh, examples)
            state, _ = program.compiled(state, program.arrays, batch, hparams)
        return jax.block_until_ready(state)

    state, times = dispatches(state, 1), []
    count = max(2, -(-STEPS // row.steps))  # two at least: the host prepares one meanwhile
    for _ in range(REPEATS):
        start = time.perf_counter()
        state = dispatches(state, count)
        seconds = time.perf_counter() - start
        times.append(1e3 * seconds / (count * row.steps * row.members))
    figures = {
        "ms_a_member": float(np.median(times)),
        "ms": times,
        "compile_s": compile_s,
        "state_mib": program.state_bytes / distributed.MIB,
        "work_mib": program.work_bytes / distributed.MIB,
    }
    if profiled:
        try:
            figures["kernels"] = profile.kernels(lambda: dispatches(state, 1), row.steps)
        except Exception as error:  # what has been measured stays
            figures["kernels"] = one_line(error)
    return figures


def ceilings(side: int, copied_bytes: int) -> dict[str, float]:
    """What no program exceeds: bytes a second of a copy, FLOP a second of side^3 products.

    Returns:
      {"copy_gb_s": read and written, "PRECISION_tflop_s": at each of train.precision}.
    """
    # Within one program: a call of its own would first have to be given memory for its result.
    times = 20
    copies = jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, x: x + 1, x))
    numbers = jnp.zeros(copied_bytes // 4, jnp.float32)
    result = {"copy_gb_s": 2 * times * numbers.nbytes / _seconds(copies, numbers) / 1e9}
    del numbers
    for precision, algorithm in distributed.PRECISIONS.items():
        stored = formulation.STORAGE.get(precision)
        factor = jnp.ones((side, side), stored or jnp.float32)
        with jax.default_matmul_precision("default" if stored else algorithm):
            product = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=jnp.float32))
            result[f"{precision}_tflop_s"] = 2 * side**3 / _seconds(product, factor) / 1e12
    return result


def _seconds(function: Callable, *arguments: Any, calls: int = 10) -> float:
    """Of one of `calls` calls, the first of all, which compiles, not counted."""
    jax.block_until_ready(function(*arguments))
    start = time.perf_counter()
    for _ in range(calls):
        result = function(*arguments)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / calls


def score(run: Run, members: int, directory: Path) -> dict[str, Any]:
    """The FactorVAE score of untrained members, as training takes it at every evaluation.

    Returns:
      {"first_s": with compiling and drawing the votes; "s_a_member": of the second}.

    Raises:
      UserError: the data set cannot be read or rendered in `directory`.
    """
    dataset = data.load("dsprites", "resident", directory, log=lambda line: None)
    runs = members_of(_run(run.config, dataset), members)
    variables = [member.create_state().variables for member in runs]
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        codes.score_each(metrics.factor_vae_score, evaluation.TRAINING_KEY, runs, variables)
        taken.append(time.perf_counter() - start)
    return {"members": members, "first_s": taken[0], "s_a_member": taken[1] / members}


def peak_gib() -> float | None:
    """The most that JAX held of the device's memory at a time; None where it does not say."""
    stats = distributed.devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return None if peak is None else peak / GIB
