"""The Frechet distance between the features of images and of generated ones (Heusel et al. 2017).

FID is the distance between two Gaussians with the features' means and covariances. On dSprites the
features are those of a network trained to predict the factors (Lee et al. 2020, appendix C.1), so a
value compares with others of the same weights only: `factor_classifier` trains and loads them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.encoding import BATCH_SIZE, FactorDataset
from ibgan_jax.metrics.score import Interval, Score

FeaturesOf = Callable[[jax.Array], jax.Array]
# (key, count) -> images [count, H, W, C] in [-1, 1].
Generate = Callable[[jax.Array, int], jax.Array]

COUNT = 50_000
BLOCKS = 20  # of the jackknife behind the interval


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The first two moments of features, in float64.

    Attributes:
      count: how many were seen, N.
      mean: [d].
      scatter: [d, d], the sum of outer products of what remains without the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """[d, d], divided by N - 1."""
        return self.scatter / (self.count - 1)

    def __add__(self, other: Statistics) -> Statistics:
        """Of both sets together (Chan et al. 1979); nothing large is subtracted."""
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return Statistics(count, mean, self.scatter + other.scatter + between)


def frechet_distance(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two Gaussians: means [d], covariances [d, d].

    The square of the 2-Wasserstein distance (Dowson and Landau 1982). In float64 and by
    eigendecompositions: tr (C1 C2)^(1/2) is the sum of the singular values of C1^(1/2) C2^(1/2).
    All roots are of symmetric matrices, so that covariances of less than full rank, as dead units
    make them, need no offset and give no complex numbers, unlike the root of the product.

    Raises:
      ValueError: the shapes are not [d], [d, d], [d], [d, d].
    """
    distance, spread = _parts(mean1, cov1, mean2, cov2)
    return distance + spread


def _parts(
    mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray
) -> tuple[float, float]:
    """The distance's share of the means and of the covariances, neither below 0."""
    means = [np.asarray(mean, np.float64) for mean in (mean1, mean2)]
    covs = [np.asarray(cov, np.float64) for cov in (cov1, cov2)]
    width = means[0].size
    shapes = [x.shape for x in (means[0], covs[0], means[1], covs[1])]
    if shapes != [(width,), (width, width)] * 2:
        raise ValueError(f"means and covariances must be [d], [d, d], [d], [d, d]; got {shapes}")
    roots = [_root(cov) for cov in covs]
    fidelity = np.linalg.svd(roots[0] @ roots[1], compute_uv=False).sum()
    spread = np.trace(covs[0]) + np.trace(covs[1]) - 2 * fidelity
    return float(np.sum((means[0] - means[1]) ** 2)), max(0.0, float(spread))


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root of a covariance [d, d]; eigenvalues that rounding alone left are 0."""
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    noise = len(values) * np.finfo(np.float64).eps * np.abs(values).max(initial=0.0)
    return (vectors * np.sqrt(np.where(values > noise, values, 0.0))) @ vectors.T


def statistics_of(features_of: FeaturesOf, batches: Iterable[jax.Array]) -> Statistics:
    """Mean and covariance of the features of batches of images [B, H, W, C], seen once, in order.

    Raises:
      UserError: no images, or the features are not finite [B, d].
    """
    total, pending = None, None
    for images in batches:
        # One batch ahead: the device never waits for the host, nor do images pile up.
        ahead, pending = pending, features_of(images)
        total = _with(total, ahead)
    total = _with(total, pending)
    if total is None:
        raise UserError("there are no images to take statistics of")
    return total


def _with(total: Statistics | None, features: jax.Array | None) -> Statistics | None:
    """`total` and a batch of features [B, d]."""
    if features is None:
        return total
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
        raise UserError(f"features must be finite [B, d]; got shape {x.shape}, or not finite")
    mean = x.mean(axis=0)
    batch = Statistics(len(x), mean, (x - mean).T @ (x - mean))
    return batch if total is None else total + batch


def fid(
    features_of: FeaturesOf,
    dataset: FactorDataset,
    generate: Generate,
    key: jax.Array,
    count: int = COUNT,
    batch_size: int = BATCH_SIZE,
    *,
    record: Mapping[str, Any],
) -> Score:
    """FID of `count` generated images against `count` different ones of the dataset: 0 is ideal.

    Finite sets raise it: two of the same distribution, with d independent features of variance s,
    are about s d (d + 5) / (2 count) apart, so values of different counts do not compare. The
    interval, by a jackknife over 20 blocks of both sets, is 1.96 standard errors either way and
    leaves this bias in.

    Args:
      features_of, record: the classifier, as `factor_classifier.load` gives them.
      dataset: has `name`, `factor_names`, `factor_sizes`, `images(factors)`.
      generate: (key, n) -> n images [n, H, W, C] in [-1, 1].
      key: a JAX random key; it alone decides the draws.
      count: images on each side, drawn without replacement from the dataset.
      batch_size: images at a time.

    Details: `mean_part` and `covariance_part`, which add up to the value.

    Raises:
      UserError: `count` is below 40 or beyond the dataset, or the classifier is not of its images.
    """
    sizes = tuple(int(size) for size in dataset.factor_sizes)
    combinations = int(np.prod(sizes, dtype=np.int64))
    if not 2 * BLOCKS <= count <= combinations:
        raise UserError(
            f"FID of {count} images: {dataset.name} allows from {2 * BLOCKS} to {combinations}"
        )
    words = np.asarray(jax.random.key_data(key)).ravel()
    rng = np.random.default_rng(words)
    drawn = rng.choice(combinations, count, replace=False)
    factors = np.stack(np.unravel_index(drawn, sizes), axis=-1)

    def real(block: np.ndarray) -> Iterator[jax.Array]:
        for start in range(0, len(block), batch_size):
            yield dataset.images(factors[block[start : start + batch_size]])

    def generated(block: np.ndarray) -> Iterator[jax.Array]:
        for start in range(0, len(block), batch_size):
            part = block[start : start + batch_size]
            yield generate(jax.random.fold_in(key, int(part[0])), len(part))

    blocks = np.array_split(np.arange(count), BLOCKS)
    sides = [[statistics_of(features_of, side(b)) for b in blocks] for side in (real, generated)]
    mean_part, covariance_part = _parts(*_moments(sides))
    value = mean_part + covariance_part
    return Score(
        value=value,
        interval=_jackknife(value, sides),
        metric="fid",
        protocol="factor_net",
        settings={
            "images": count,
            "features": len(sides[0][0].mean),
            "classifier": {name: record[name] for name in ("sha256", "dataset", "accuracy")},
        },
        dataset=dataset.name,
        factor_names=tuple(dataset.factor_names),
        key=words.tolist(),
        details={"mean_part": mean_part, "covariance_part": covariance_part},
    )


def _moments(sides: list[list[Statistics]]) -> list[np.ndarray]:
    """Mean and covariance of each side, its blocks taken together."""
    totals = [functools.reduce(Statistics.__add__, side) for side in sides]
    return [moment for total in totals for moment in (total.mean, total.covariance)]


def _jackknife(value: float, sides: list[list[Statistics]]) -> Interval:
    """value +- 1.96 standard errors, by leaving out each block of both sides in turn."""
    without = np.array(
        [
            frechet_distance(*_moments([side[:b] + side[b + 1 :] for side in sides]))
            for b in range(BLOCKS)
        ]
    )
    error = np.sqrt((BLOCKS - 1) * without.var())
    return max(0.0, value - 1.96 * float(error)), value + 1.96 * float(error)
