"""What every metric returns: a value with everything that is needed to trust or repeat it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ibgan_jax.errors import UserError

Interval = tuple[float, float]


class Result(NamedTuple):
    """What a metric says of arrays, whatever they came from.

    Attributes:
      value: in [0, 1], 1 is ideal.
      interval: 95 %, holds `value`.
      details: arrays, lists and numbers by name: matrices [d, F] and parts of the value.
    """

    value: float
    interval: Interval
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Score:
    """A value and where it came from.

    Attributes:
      value: in [0, 1], 1 is ideal; of FID a distance, 0 is ideal; of GILBO nats.
      interval: 95 % interval over the votes or images that the metric drew.
      metric: a name in METRICS.
      protocol: the named set of numbers behind the value, spelt out in `settings`.
      dataset: whose factors were looked for.
      factor_names: all of the dataset's; those with one value only are in no average.
      key: the words of the random key that decided every draw.
      details: matrices [d, F] worth drawing and parts of the value, by name.
    """

    value: float
    interval: Interval
    metric: str
    protocol: str
    settings: dict[str, Any]
    dataset: str
    factor_names: tuple[str, ...]
    key: list[int]
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __float__(self) -> float:
        return self.value

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for scores.json; details stand beside the other entries."""
        return plain(self)


def plain(record: Any) -> dict[str, Any]:
    """A dataclass with `details` as numbers and lists; details stand beside the other entries."""
    entries = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    entries |= entries.pop("details")
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in entries.items()
    }


def scikit_learn(module: str) -> ModuleType:
    """`sklearn.MODULE`, imported only by the metrics that train its classifiers.

    Raises:
      UserError: scikit-learn is not installed.
    """
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError as error:
        raise UserError(
            "this metric needs scikit-learn; install it: pip install 'scikit-learn>=1.6,<2'"
        ) from error


def interval_around(value: float, resampled: np.ndarray) -> Interval:
    """The middle 95 % of values [R] from resamples, moved so that their mean is `value`.

    A resample holds fewer distinct images, which raises information and maxima a little; moving the
    interval takes this bias of the resamples out of it.
    """
    low, high = np.quantile(resampled, (0.025, 0.975)) - resampled.mean() + value
    return max(0.0, min(float(low), value)), min(1.0, max(float(high), value))


def bootstrap(
    terms: np.ndarray,
    statistic: Callable[[np.ndarray], float],
    rng: np.random.Generator,
    resamples: int = 1000,
) -> Interval:
    """Interval of `statistic(mean of terms)` when the rows of terms [N, ...] are drawn anew."""
    value = statistic(terms.mean(axis=0))
    rows, flat = len(terms), terms.reshape(len(terms), -1).astype(np.float64)
    # Fifty resamples at a time: the counts [50, N] stay small.
    means = [
        rng.multinomial(rows, np.full(rows, 1 / rows), 50) @ flat / rows
        for _ in range(-(-resamples // 50))
    ]
    drawn = np.concatenate(means).reshape(-1, *terms.shape[1:])
    return interval_around(value, np.array([statistic(mean) for mean in drawn]))
