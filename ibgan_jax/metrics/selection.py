"""Selection without labels: the record of a population's members, and how two rankings agree."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.score import plain


@dataclasses.dataclass(frozen=True)
class Selection:
    """How each of M trained members stands among the others, and where that came from.

    Attributes:
      values: [M], in [0, 1]; the greatest is the member to choose.
      pairs: [M, M], in [0, 1], what the values are made of; the diagonal, a member with itself,
        is in no value.
      metric: "udr" or "model_centrality".
      protocol: the named set of numbers behind the values, spelt out in `settings`.
      key: the words of the random key that decided every draw; None where nothing is drawn.
      details: further arrays by name.
    """

    values: np.ndarray
    pairs: np.ndarray
    metric: str
    protocol: str
    settings: dict[str, Any]
    key: list[int] | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> int:
        """The member of the greatest value, counted from 0; of equals the first."""
        return int(self.values.argmax())

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, JSON-ready; `best` and the details among the other entries."""
        return plain(self) | {"best": self.best}


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float | None:
    """Spearman's rank correlation of two scores of the same members, in [-1, 1].

    Equal scores share the mean of their ranks.

    Args:
      a: [M], one score a member; None or nan where there is none, which leaves that member out.
      b: [M], the other.

    Returns:
      None where it is not defined: fewer than two members are left, or one score is the same for
      all of them.

    Raises:
      UserError: not two rows of M numbers.
    """
    try:
        columns = np.stack([np.asarray(a, np.float64), np.asarray(b, np.float64)], axis=-1)
    except (TypeError, ValueError):
        columns = np.zeros(0)
    if columns.ndim != 2:
        raise UserError("rank_correlation takes two rows of equally many numbers")
    correlation = spearman(columns[~np.isnan(columns).any(axis=1)])[0, 1]
    return None if np.isnan(correlation) else float(correlation)


def spearman(columns: np.ndarray) -> np.ndarray:
    """Rank correlations [K, K] of columns [N, K]; nan where a column is constant."""
    from scipy.stats import rankdata  # half a second that every command would pay

    if not len(columns):
        return np.full((columns.shape[1],) * 2, np.nan)
    # Ranks, halves at worst, are exact: those of a constant column have a norm of exactly 0.
    ranks = rankdata(columns, axis=0) - (len(columns) + 1) / 2
    norms = np.linalg.norm(ranks, axis=0)
    ranks = ranks / np.where(norms > 0, norms, np.nan)
    return np.clip(ranks.T @ ranks, -1.0, 1.0)


def finite(name: str, values: ArrayLike, axes: str) -> np.ndarray:
    """`values` as float64, with the axes that are named, as in "[M, d]"; none of length 0.

    Raises:
      UserError: they are not finite numbers of such a shape.
    """
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be an array {axes} of numbers") from None
    if array.ndim != axes.count(",") + 1 or not array.size:
        raise UserError(f"{name} must be {axes}; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise UserError(f"{name} must be finite numbers; got nan or infinity")
    return array


def check_members(count: int) -> None:
    """Raises UserError where there are fewer than two members."""
    if count < 2:
        raise UserError(f"members are compared in pairs: two or more are needed, got {count}")
