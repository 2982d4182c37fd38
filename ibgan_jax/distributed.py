"""Meshes, shardings and processes: how work is spread over devices.

Losses contain no collectives: state and batches carry `NamedSharding`s on a (`population`, `data`)
mesh and XLA adds what is needed, so BatchNorm sees the global batch. One device is the 1 x 1 mesh,
and one run a population of one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ibgan_jax.errors import UserError

AXES = ("population", "data")
# What the factors of matrix products are rounded to, in the words of jax.default_matmul_precision;
# sums, and all else, stay float32. Accelerators round to TF32 or bfloat16 unless told not to.
# bfloat16 and float16 also store what convolutions lay out in 16 bits (`networks.formulation`); a
# product outside convolutions takes TF32 for float16, which has as long a mantissa.
EXACT = "float32"
MIB = 2**20
PRECISIONS = {
    EXACT: "highest",
    "tf32": "TF32_TF32_F32",
    "bfloat16": "BF16_BF16_F32",
    "float16": "TF32_TF32_F32",
}


def devices() -> list[jax.Device]:
    """The devices of the platform in use.

    Raises:
      UserError: the platform asked for by JAX_PLATFORMS is not there.
    """
    try:
        return jax.devices()
    except (
        RuntimeError,
        AssertionError,
    ) as error:  # no GPU: a bare AssertionError in some versions
        asked = jax.config.jax_platforms or "default"
        reason = str(error).split("\n")[0] or "it was not found"
        raise UserError(
            f"no device of platform {asked!r}: {reason}; set JAX_PLATFORMS=cpu, or install the "
            "cuda13, cuda12 or tpu extra on a machine that has one"
        ) from error


def check_precision(name: str) -> None:
    """Raises UserError for one of PRECISIONS that makes no difference on this platform."""
    if name != EXACT and devices()[0].platform == "cpu":
        raise UserError(f"train.precision={name} is for accelerators; a CPU computes in {EXACT}")


def compiler_options(platform: str) -> dict[str, int] | None:
    """What XLA is told about the train step.

    A GPU's products that share a factor are not merged into one: the parts of its result would be
    copied out again. For ten members of IB-GAN in 16 bits that is 6 % of a step's bytes.
    """
    return {"xla_gpu_dot_merger_threshold_mb": 0} if platform == "gpu" else None


def make_mesh(population: int = 1, data: int | None = None) -> Mesh:
    """A (population, data) mesh; `data` defaults to all devices over `population`.

    Raises:
      UserError: there are not that many devices.
    """
    found = devices()
    data = len(found) // population if data is None else data
    if population * data > len(found) or data < 1:
        raise UserError(
            f"a {population} x {data} mesh needs more than the {len(found)} devices here"
        )
    return jax.make_mesh(
        (population, data),
        AXES,
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=found[: population * data],
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters, optimizer state, the resident dataset."""
    return NamedSharding(mesh, PartitionSpec())


def member_sharding(mesh: Mesh) -> NamedSharding:
    """[n, ...]: members over `population`, each whole."""
    return NamedSharding(mesh, PartitionSpec("population"))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """[n, K, B, ...]: members over `population`, a dispatch's steps whole, batches over `data`."""
    return NamedSharding(mesh, PartitionSpec("population", None, "data"))


@dataclasses.dataclass(frozen=True)
class Spread:
    """Batches cut over all devices of a mesh, for what has no members."""

    mesh: Mesh

    def share(self, batch: jax.Array) -> jax.Array:
        """[B, ...], each device its part; whole everywhere where B does not split."""
        if len(batch) % self.mesh.size:
            return batch
        sharding = NamedSharding(self.mesh, PartitionSpec(AXES))
        return jax.lax.with_sharding_constraint(batch, sharding)

    def gather(self, batch: jax.Array) -> jax.Array:
        """The whole of it on every device."""
        return jax.lax.with_sharding_constraint(batch, replicated(self.mesh))


def mesh_for(members: int) -> Mesh:
    """The mesh of `members` that train together: as many devices side by side as divide them."""
    return make_mesh(math.gcd(members, len(devices())))


def members_together(mesh: Mesh, members: int) -> int:
    """n, how many of `members` one dispatch holds; n divides them, `population` divides n.

    On a CPU each device takes one at a time: the cores are full with one, whose intermediate
    results then stay in cache. Elsewhere all at once, since one does not fill an accelerator.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return mesh.shape["population"] if on_cpu else members


def stack(mesh: Mesh, *trees: Any) -> Any:
    """Pytrees of n members -> one with leaves [n, ...], over `population`."""
    return _stack(member_sharding(mesh))(*trees)


@functools.cache
def _stack(sharding: NamedSharding) -> Callable[..., Any]:
    def stack(*trees: Any) -> Any:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    return jax.jit(stack, out_shardings=sharding)


def member(mesh: Mesh, tree: Any, place: int) -> Any:
    """The pytree of the member at `place` in leaves [n, ...], whole on every device."""
    return _slice(replicated(mesh))(tree, place)


@functools.cache
def _slice(sharding: NamedSharding) -> Callable[[Any, int], Any]:
    return jax.jit(lambda tree, i: jax.tree.map(lambda x: x[i], tree), out_shardings=sharding)


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises UserError when the batch does not split evenly over the mesh."""
    parts = mesh.shape["data"]
    if batch_size % parts:
        raise UserError(
            f"train.batch_size={batch_size} does not split over {parts} devices; "
            f"choose a multiple of {parts}"
        )


@dataclasses.dataclass(frozen=True)
class Part:
    """What one process feeds of a dispatch: some of its members, and a share of each batch."""

    members: slice
    batch: slice


def process_part(mesh: Mesh, members: int, batch_size: int) -> Part:
    """This process's part of batches [members, K, batch_size], as `batch_sharding` spreads them."""
    shape = (members, 1, batch_size)
    indices = batch_sharding(mesh).addressable_devices_indices_map(shape).values()
    return Part(*(_hull([index[axis] for index in indices], shape[axis]) for axis in (0, 2)))


def _hull(slices: list[slice], size: int) -> slice:
    bounds = [s.indices(size)[:2] for s in slices]
    return slice(min(start for start, _ in bounds), max(stop for _, stop in bounds))


def put_batch(mesh: Mesh, batch: Any) -> Any:
    """This process's part of a dispatch, leaves [n, K, B, ...] -> global arrays."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def place(tree: Any, sharding: jax.sharding.Sharding | None) -> Any:
    """Host arrays, the same in every process, on the devices; None is the default device."""
    if sharding is None:
        return jax.device_put(tree)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x)),
        tree,
    )


def is_main_process() -> bool:
    """Whether this process writes records, figures and pages, and says what there is to say."""
    return processes() == 1 or jax.process_index() == 0


def processes() -> int:
    """How many there are; a process alone is not made to look for devices."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def wait_for_all(name: str) -> None:
    """Returns when every process has come to this point, which `name` says."""
    if processes() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def agreed(number: float) -> float:
    """The main process's number, in every process; all call it at the same point."""
    if processes() == 1:
        return number
    from jax.experimental import multihost_utils

    return float(multihost_utils.broadcast_one_to_all(np.float32(number)))


def records_beside_steps(mesh: Mesh) -> bool:
    """Whether scores, pictures and saves are made while the device has its next steps.

    Programs that span devices must start in the same order on each, so they are left to one thread;
    the cores of a CPU are full with the steps.
    """
    return processes() == 1 and mesh.size == 1 and mesh.devices.flat[0].platform != "cpu"


def shared_out(function: Callable[[Any], jax.Array], batch: jax.Array) -> Any:
    """`function` of a batch [B, ...] that every process has: each its share, and all the result."""
    count = processes()
    if count == 1 or len(batch) % count:
        return function(batch if count == 1 else np.asarray(batch))
    from jax.experimental import multihost_utils

    share = np.split(np.asarray(batch), count)[jax.process_index()]
    return multihost_utils.process_allgather(np.asarray(function(share)), tiled=True)


class AnyProcess:
    """Whether any process wants something, known in all of them one call later.

    Every process calls it at the same points. The answer is of the call before, when the devices
    have long passed it, so that nobody waits.
    """

    def __init__(self) -> None:
        self._before: jax.Array | None = None
        self._mesh = jax.make_mesh((len(jax.devices()),), ("any",), axis_types=(AxisType.Auto,))

    def __call__(self, mine: bool) -> bool:
        if processes() == 1:
            return mine
        sharding = NamedSharding(self._mesh, PartitionSpec("any"))
        flags = np.full(len(jax.local_devices()), mine)
        asked = _any(replicated(self._mesh))(
            jax.make_array_from_process_local_data(sharding, flags)
        )
        before, self._before = self._before, asked
        return before is not None and bool(before)


@functools.cache
def _any(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.any, out_shardings=sharding)
