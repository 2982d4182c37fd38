"""The Frechet distance between the features of images and of generated ones (Heusel et al. 2017).

FID is the distance between two Gaussians with the features' means and covariances. Whose features
is the protocol, and values of different ones, or of different weights, do not compare:

- `inception`: Inception V3's, from the weights that pytorch-fid publishes (`inception.load`);
- `factor_net`: those of a network trained to predict dSprites' factors (Lee et al. 2020, appendix
  C.1), which `factor_classifier` trains and loads.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.encoding import BATCH_SIZE
from ibgan_jax.metrics.moments import FeaturesOf, Statistics, kept, statistics_of
from ibgan_jax.metrics.score import Interval, Score

# (key, count) -> images [count, H, W, C] in [-1, 1].
Generate = Callable[[jax.Array, int], jax.Array]

COUNT = 50_000
BLOCKS = 20  # of the jackknife behind the interval
SECONDS_BETWEEN_LINES = 60
# Of the record, what a score's settings repeat: values compare where these are equal.
CLASSIFIER_ENTRIES = ("sha256", "resized", "dataset", "accuracy")


class ImageDataset(Protocol):
    """What FID needs of a dataset; it may also have `factor_names`, and an `identity` that says
    which images it holds where its name does not."""

    name: str
    size: int

    def examples(self, indices: np.ndarray) -> jax.Array:
        """Indices int [B] below `size` -> images [B, H, W, C] in [-1, 1]."""


def frechet_distance(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two Gaussians: means [d], covariances [d, d].

    The square of the 2-Wasserstein distance (Dowson and Landau 1982). In float64 and by
    eigendecompositions: tr (C1 C2)^(1/2) is the sum of the singular values of C1^(1/2) C2^(1/2).
    All roots are of symmetric matrices, so that covariances of less than full rank, as dead units
    or fewer images than features make them, need no offset and give no complex numbers, unlike the
    root of the product, which pytorch-fid takes.

    Raises:
      ValueError: the shapes are not [d], [d, d], [d], [d, d].
    """
    distance, spread, _ = _parts(mean1, cov1, mean2, cov2)
    return distance + spread


def _parts(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> tuple[float, float, np.ndarray]:
    """The distance's share of the means and of the covariances, neither below 0, and the latter's
    gradient [d, d] in C2."""
    means = [np.asarray(mean, np.float64) for mean in (mean1, mean2)]
    covs = [np.asarray(cov, np.float64) for cov in (cov1, cov2)]
    width = means[0].size
    shapes = [x.shape for x in (means[0], covs[0], means[1], covs[1])]
    if shapes != [(width,), (width, width)] * 2:
        raise ValueError(f"means and covariances must be [d], [d, d], [d], [d, d]; got {shapes}")
    roots = [_root(cov) for cov in covs]
    vectors, values, _ = np.linalg.svd(roots[0] @ roots[1])
    spread = np.trace(covs[0]) + np.trace(covs[1]) - 2 * values.sum()
    # I - R (R C2 R)^(-1/2) R, R the root of C1; without the directions that one of them lacks.
    present = values > width * np.finfo(np.float64).eps * values.max(initial=0.0)
    scaled = (roots[0] @ vectors[:, present]) / np.sqrt(values[present])
    gradient = np.eye(width) - scaled @ scaled.T
    return float(np.sum((means[0] - means[1]) ** 2)), max(0.0, float(spread)), gradient


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance [d, d]; eigenvalues that rounding alone left are 0."""
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    noise = len(values) * np.finfo(np.float64).eps * np.abs(values).max(initial=0.0)
    return (vectors * np.sqrt(np.where(values > noise, values, 0.0))) @ vectors.T


def fid(
    features_of: FeaturesOf,
    dataset: ImageDataset,
    generate: Generate,
    key: jax.Array,
    count: int = COUNT,
    batch_size: int = BATCH_SIZE,
    *,
    record: Mapping[str, Any],
    cache: Path | None = None,
    log: Callable[[str], Any] = print,
) -> Score:
    """FID of `count` generated images against as many real ones, or all that there are: 0 is ideal.

    Finite sets raise it: two of the same distribution, with d independent features of variance s,
    are about s d (d + 5) / (2 count) apart, so values of different counts do not compare. The
    interval is 1.96 standard errors either way and leaves this bias in. The real images are the
    reference and held fixed; the error is that of a jackknife over 20 blocks of generated ones,
    whose covariance part is linearised: 20 distances of 2,048 features would take minutes. Their
    sums lie in memory, 0.7 GB of them for 2,048 features, however many images there are.

    Args:
      features_of, record: the classifier, as `inception.load` or `factor_classifier.load` gives.
      dataset: has `name`, `size`, `examples(indices)`.
      generate: (key, n) -> n images [n, H, W, C] in [-1, 1].
      key: a JAX random key; it alone decides the draws.
      count: images to generate; real ones are drawn without replacement.
      batch_size: images at a time.
      cache: a folder in which the real images' statistics are kept, for this data set, these
        images' shape, this protocol, these weights, this count and key, and for no others.

    Details: `mean_part` and `covariance_part`, which add up to the value.

    Raises:
      UserError: there are fewer than 40 images of a kind, or the classifier is not of these images.
    """
    if min(count, dataset.size) < 2 * BLOCKS:
        raise UserError(
            f"FID of {count} images against {dataset.size} of {dataset.name}: "
            f"{2 * BLOCKS} of each are the least"
        )
    words = np.asarray(jax.random.key_data(key)).ravel()
    # In ascending order, as files are read fastest.
    drawn = np.random.default_rng(words).choice(
        dataset.size, min(count, dataset.size), replace=False
    )
    real = _of_dataset(features_of, dataset, np.sort(drawn), batch_size, record, words, cache, log)
    progress = _Progress("generated", count, log)

    def generated(block: np.ndarray) -> Iterator[jax.Array]:
        for part in _batches(block, batch_size):
            yield generate(jax.random.fold_in(key, int(part[0])), len(part))

    blocks = [
        statistics_of(features_of, progress.along(generated(block)))
        for block in np.array_split(np.arange(count), BLOCKS)
    ]
    value, interval, details = _compare(real, blocks)
    return Score(
        value=value,
        interval=interval,
        metric="fid",
        protocol=record["protocol"],
        settings={
            "images": count,
            "real_images": real.count,
            "features": len(real.mean),
            "classifier": {name: record[name] for name in CLASSIFIER_ENTRIES if name in record},
        },
        dataset=dataset.name,
        factor_names=tuple(getattr(dataset, "factor_names", ())),
        key=words.tolist(),
        details=details,
    )


class _Progress:
    """Says once a minute how many images are done: 50,000 take hours on a CPU."""

    def __init__(self, kind: str, total: int, log: Callable[[str], Any]) -> None:
        self._kind, self._total, self._log = kind, total, log
        self._started = self._said = time.monotonic()
        self._done = 0

    def along(self, batches: Iterable[jax.Array]) -> Iterator[jax.Array]:
        """The batches, counted as they go by."""
        for images in batches:
            yield images
            self._done += len(images)
            now = time.monotonic()
            if now - self._said >= SECONDS_BETWEEN_LINES:
                left = (now - self._started) * (self._total / self._done - 1)
                done = f"{self._done:,} of {self._total:,} {self._kind} images"
                self._log(f"fid: {done}, about {left / 60:.0f} min left")
                self._said = now


def _batches(indices: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), batch_size):
        yield indices[start : start + batch_size]


def _of_dataset(
    features_of: FeaturesOf,
    dataset: ImageDataset,
    drawn: np.ndarray,
    batch_size: int,
    record: Mapping[str, Any],
    words: np.ndarray,
    cache: Path | None,
    log: Callable[[str], Any],
) -> Statistics:
    """Of the examples at `drawn` [N], which follow from `words`; kept in the folder `cache`."""

    def make() -> Statistics:
        batches = map(dataset.examples, _batches(drawn, batch_size))
        return statistics_of(features_of, _Progress("real", len(drawn), log).along(batches))

    if cache is None:
        return make()
    # Names alone do not tell apart what a seed, a painting or a folder of files made.
    first = np.asarray(dataset.examples(drawn[:batch_size]))
    identity = getattr(dataset, "identity", None)
    about = {
        "dataset": dataset.name,
        "identity": None if identity is None else str(identity),
        "size": dataset.size,
        "image_shape": list(first.shape[1:]),
        "first_images": hashlib.sha256(first.tobytes()).hexdigest(),
        "protocol": record["protocol"],
        "classifier": record["sha256"],
        "count": len(drawn),
        "key": words.tolist(),
    }
    return kept(cache, about, make, log)


def _compare(
    real: Statistics, blocks: list[Statistics]
) -> tuple[float, Interval, dict[str, float]]:
    """The distance, its interval and its parts."""
    total = functools.reduce(Statistics.__add__, blocks)
    covariance = total.covariance
    mean_part, covariance_part, gradient = _parts(
        real.mean, real.covariance, total.mean, covariance
    )
    value = mean_part + covariance_part
    without = []
    for block in blocks:
        rest = total - block
        moved = np.vdot(gradient, rest.covariance - covariance)
        without.append(np.sum((real.mean - rest.mean) ** 2) + moved)
    error = float(np.sqrt((len(blocks) - 1) * np.var(without)))
    interval = max(0.0, value - 1.96 * error), value + 1.96 * error
    return value, interval, {"mean_part": mean_part, "covariance_part": covariance_part}
