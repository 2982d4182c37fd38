"""The only file that knows about devices: mesh, shardings, processes.

Losses contain no collectives: state and batches carry `NamedSharding`s on a (`population`, `data`)
mesh and XLA adds what is needed, so BatchNorm sees the global batch. One device is the 1 x 1 mesh.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ibgan_jax.errors import UserError

AXES = ("population", "data")


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
            "cuda12 or tpu extra on a machine that has one"
        ) from error


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


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """[K, B, ...]: the steps of a dispatch whole, each batch split over `data`."""
    return NamedSharding(mesh, PartitionSpec(None, "data"))


def process_part(batch_size: int) -> slice:
    """The share of each global batch that this process feeds."""
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises UserError when the batch does not split evenly over the mesh."""
    parts = mesh.shape["data"]
    if batch_size % parts:
        raise UserError(
            f"train.batch_size={batch_size} does not split over {parts} devices; "
            f"choose a multiple of {parts}"
        )


def put_batch(mesh: Mesh, batch: Any) -> Any:
    """This process's part of a batch, leaves [K, B / processes, ...] -> global sharded arrays."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def is_main_process() -> bool:
    """Whether this process writes telemetry and figures."""
    return jax.process_index() == 0
