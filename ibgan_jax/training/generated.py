"""Scores of what a run generates: FID and GILBO. They take minutes, on a CPU hours."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.tree_util import Partial

from ibgan_jax import distributed, metrics
from ibgan_jax.metrics import classifier as classifiers
from ibgan_jax.models.base import ByPlayer
from ibgan_jax.training.run import Run

# What is measured of the generator, not of codes, and its protocols.
METRICS = {"fid": tuple(classifiers.LOADERS), "gilbo": ("conv_encoder",)}


def check(names: Sequence[str], datasets: Sequence[str], classifier: Path | None) -> None:
    """Finds out now what would stop the scores among `names` (METRIC or METRIC:PROTOCOL) later.

    Raises:
      UserError: FID is among them, but its classifier is not there or has learned another data set
        than one of `datasets`.
    """
    for name in names:
        metric, _, protocol = name.partition(":")
        for dataset in datasets if metric == "fid" else ():
            _load(classifier, protocol, dataset)


@functools.cache
def _load(classifier: Path | None, protocol: str, dataset: str) -> tuple[Callable, dict[str, Any]]:
    return classifiers.load(classifier, protocol, dataset)


def score(
    name: str,
    run: Run,
    variables: ByPlayer,
    key: int,
    classifier: Path | None,
    log: Callable[[str], Any],
    images: int = metrics.FID_IMAGES,
) -> metrics.Score:
    """GILBO, or FID of `images`, made of codes ~ N(0, I), which is IB-GAN's m(r) too."""
    metric, _, protocol = name.partition(":")
    dims = run.model.code_dim
    if metric == "gilbo":
        made = Partial(run.model.generate, variables)
        return metrics.gilbo(made, dims, jax.random.key(key))
    features_of, record = _load(classifier, protocol, run.dataset.name)

    def generate(key: jax.Array, count: int) -> jax.Array:
        return run.generate(variables, jax.random.normal(key, (count, dims)))

    return metrics.fid(
        functools.partial(distributed.shared_out, features_of),
        run.dataset,
        generate,
        jax.random.key(key),
        count=images,
        batch_size=metrics.BATCH_SIZE * run.mesh.size,
        record=record,
        cache=Path(run.config.dataset.dir).expanduser() / "statistics",
        log=log,
    )
