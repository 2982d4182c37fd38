"""How the codes of scores are made: few images at a time on a CPU, thousands on an accelerator.

There one program makes those that a metric asks of all members of a population.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ibgan_jax import distributed, metrics
from ibgan_jax.data.sprite_dataset import SpriteDataset
from ibgan_jax.metrics.metric import Metric
from ibgan_jax.models.base import ByPlayer, Model
from ibgan_jax.training.run import Run

# Images times members that a device encodes at a time. For IB-GAN's q at width 16 an H100 needs
# 1.3 GiB for them (1.7 without minimal filtering), as much as for a training step of ten members;
# twice as many would save a sixtieth of the estimated time.
AT_ONCE = 5_000
# With few members more images would only take memory.
LARGEST = 2_000


def many_at_once(mesh: Mesh) -> bool:
    """Whether thousands of images are encoded at a time; a CPU's cache holds but few of them."""
    return mesh.devices.flat[0].platform != "cpu"


def encoder(run: Run, variables: ByPlayer) -> metrics.Encoder:
    """The codes of the run's representation, encoded the fast way for its devices.

    Each accelerator takes LARGEST images at a time, which keep it busy. On one CPU device two
    batches are encoded at a time: what one leaves of the cores the other takes. On two cores the
    score of an untrained VAE then takes 9.8 s instead of 14.5, IB-GAN's 12.3 instead of 13.8; a
    third thread adds nothing. Programs that span devices must start in the same order on each, so
    they are left to one thread.
    """
    many = many_at_once(run.mesh)
    images = LARGEST if many else metrics.BATCH_SIZE
    threads = 1 if many or run.mesh.size > 1 else 2
    codes_of = functools.partial(run.represent, variables)
    return metrics.Encoder(codes_of, run.dataset, images * run.mesh.size, threads)


def score_each(
    metric: Metric, key: int, runs: Sequence[Run], variables: Sequence[ByPlayer]
) -> list[Any]:
    """The Score of each member of a population by `metric`, in its first protocol.

    On an accelerator one program makes the codes of all members, and threads do the rest.

    Args:
      metric: asks for the same combinations of factors whatever their codes are.
      key: of the random key that decides them.
      runs: of one model, data set and mesh.
      variables: each member's, whole on every device.

    Raises:
      UserError: codes that are not finite.
    """

    def score(encode: metrics.Encoder) -> metrics.Score:
        return metric(encode, encode.dataset, jax.random.key(key))

    members = (encoder(run, own) for run, own in zip(runs, variables, strict=True))
    if not many_at_once(runs[0].mesh):
        return list(map(score, members))
    members = list(members)
    model, dataset, mesh = runs[0].model, runs[0].dataset, distributed.mesh_for(len(runs))
    protocol = next(iter(metric.protocols.items()))
    asked = _asked(metric, protocol, key, dataset, mesh, len(runs))
    encode = program(model, dataset, mesh)
    codes = np.asarray(encode(tuple(variables), dataset.arrays, asked.batches))
    for member, own in zip(members, codes, strict=True):
        member.remember(asked.factors, own[: len(asked.factors)])
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(score, members))


def batch_size(mesh: Mesh, members: int) -> int:
    """How many images are encoded at a time by so many members; they split over the mesh."""
    images = AT_ONCE * mesh.shape["population"] // members
    return mesh.shape["data"] * max(1, min(images, LARGEST))


@functools.lru_cache(maxsize=1)
def program(model: Model, dataset: SpriteDataset, mesh: Mesh) -> Callable[..., jax.Array]:
    """Jitted (the P members' variables, the data set's arrays, batches) -> codes [P, K B, d].

    `batches` have leaves [K, B, ...], from `dataset.lookup_factors`, and are encoded in turn.
    Members lie over the mesh's `population`, the images of a batch over its `data`; each image is
    decoded once for all members. What `represent` does not read of the variables is no argument of
    what is compiled.
    """
    by_member = distributed.member_sharding(mesh)
    by_image = NamedSharding(mesh, PartitionSpec("data"))

    def codes(
        variables: tuple[ByPlayer, ...], arrays: dict[str, jax.Array], batches: Any
    ) -> jax.Array:
        members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
        members = lax.with_sharding_constraint(members, by_member)
        represent = jax.vmap(model.represent, (0, None), spmd_axis_name="population")

        def encode(batch: Any) -> jax.Array:
            images = dataset.decode_factors(arrays, batch)
            return represent(members, lax.with_sharding_constraint(images, by_image))

        by_batch = lax.map(encode, batches)  # [K, P, B, d]
        return jnp.moveaxis(by_batch, 0, 1).reshape(len(variables), -1, by_batch.shape[-1])

    return jax.jit(codes, out_shardings=distributed.replicated(mesh))


@dataclasses.dataclass(frozen=True)
class _Asked:
    """The combinations of factors that a metric asks codes of.

    Attributes:
      factors: int [N, F].
      batches: of their `lookup_factors`, on the devices, leaves [K, B, ...]; what K B is more than
        N repeats the first combination.
    """

    factors: np.ndarray
    batches: Any


# The draws of one evaluation are those of the next.
@functools.lru_cache(maxsize=1)
def _asked(
    metric: Metric,
    protocol: tuple[str, Any],
    key: int,
    dataset: SpriteDataset,
    mesh: Mesh,
    members: int,
) -> _Asked:
    factors = metrics.combinations_of(metric, dataset, jax.random.key(key), protocol[0])
    parts = mesh.shape["data"]
    count = -(-len(factors) // batch_size(mesh, members))
    size = -(-len(factors) // (count * parts)) * parts
    padding = np.repeat(factors[:1], count * size - len(factors), axis=0)
    padded = np.concatenate([factors, padding]).reshape(count, size, -1)
    sharding = NamedSharding(mesh, PartitionSpec(None, "data"))
    return _Asked(factors, distributed.place(dataset.lookup_factors(padded), sharding))
