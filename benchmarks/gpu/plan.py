"""Which programs are measured, in which order, which cannot win any more, and which is the best."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

# The most exact first. Of two programs the faster wins if it is at least as exact.
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")
CLASSES = {"16-bit": ("float16", "bfloat16"), "tf32": ("tf32",), "float32": ("float32",)}
TEN, K = 10, 50
FULL_STEPS = 150_000  # of configs/dsprites.py
# How many times the best row's time a row may take before its relatives are not measured.
HOPELESS = 1.5


@dataclasses.dataclass(frozen=True)
class Row:
    """One program.

    Attributes:
      convolution: train.convolution. precision: train.precision.
      members: P, in one program. steps: K, in one dispatch.
    """

    convolution: str
    precision: str
    members: int
    steps: int = K

    def __str__(self) -> str:
        return f"{self.convolution} {self.precision} P={self.members} K={self.steps}"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A row and what a step of one member took."""

    row: Row
    ms_a_member: float
    compile_s: float


# The most decisive first. A string is one of `torch_rows.ROWS`, or SCORE. On an H200 a row takes 16
# to 18 s, in float32 45 s, for XLA tries more ways of its products.
SCORE = "score"
ORDER: tuple[Row | str, ...] = (
    Row("patches", "float16", TEN),
    Row("lax", "bfloat16", TEN),
    Row("patches", "tf32", TEN),
    "graph bfloat16",
    Row("patches", "float16", 1),
    "graph tf32",
    Row("patches", "float16", 4),
    Row("patches", "float16", 32),
    SCORE,
    Row("lax", "tf32", 1),
    Row("patches", "bfloat16", TEN),
    Row("filtered", "float32", TEN),
    Row("patches", "float32", TEN),
    "compile bfloat16",
    Row("patches", "float16", 16),
    Row("patches", "tf32", 1),
    Row("patches", "tf32", 16),
)


def fewer_members(order: Iterable[Row | str], most: int, steps: int) -> tuple[Row | str, ...]:
    """The rows with at most so many members and steps a dispatch, each once; for a rehearsal."""
    small = [
        dataclasses.replace(one, members=min(one.members, most), steps=steps)
        if isinstance(one, Row)
        else one
        for one in order
    ]
    return tuple(dict.fromkeys(small))


def other_dispatches(measured: Sequence[Measured], steps: Sequence[int]) -> tuple[Row, ...]:
    """The best row of the most members that were measured, and of one, at other K.

    Most members here are those of the first row, which all other rows are compared with.
    """
    rows = []
    for members in dict.fromkeys([measured[0].row.members, 1] if measured else []):
        of_as_many = [one for one in measured if one.row.members == members]
        if of_as_many:
            fastest = min(of_as_many, key=lambda one: one.ms_a_member).row
            rows += [dataclasses.replace(fastest, steps=k) for k in steps if k != fastest.steps]
    return tuple(rows)


def cannot_win(row: Row, measured: Sequence[Measured]) -> str | None:
    """Why the row cannot be the best of its precision; None where it may be.

    The time a member hardly depends on P above a few, nor on K. So where a form has been measured
    with the members of the first row and took more than HOPELESS times as long as a form that is
    at least as exact, it is not measured with others.
    """
    if not measured or row.members == measured[0].row.members:
        return None
    compared = [one for one in measured if one.row.members == measured[0].row.members]
    way = (row.convolution, row.precision)
    own = [one for one in compared if (one.row.convolution, one.row.precision) == way]
    exact = PRECISIONS[: PRECISIONS.index(row.precision) + 1]
    rivals = [one for one in compared if one.row.precision in exact]
    if not own or not rivals:
        return None
    best = min(rivals, key=lambda one: one.ms_a_member)
    times = min(one.ms_a_member for one in own) / best.ms_a_member
    if times <= HOPELESS:
        return None
    return f"cannot win: {row.convolution} {row.precision} takes {times:.1f} times {best.row}"


def best(measured: Sequence[Measured]) -> dict[str, dict[str, Any] | None]:
    """The fastest row of each class of precision, None where none was measured."""
    return {name: _fastest(measured, precisions) for name, precisions in CLASSES.items()}


def _fastest(measured: Sequence[Measured], precisions: Sequence[str]) -> dict[str, Any] | None:
    rows = [one for one in measured if one.row.precision in precisions]
    if not rows:
        return None
    fastest = min(rows, key=lambda one: one.ms_a_member)
    return {
        "convolution": fastest.row.convolution,
        "precision": fastest.row.precision,
        "members": fastest.row.members,
        "steps_per_dispatch": fastest.row.steps,
        "ms_a_member": fastest.ms_a_member,
        "compile_s": fastest.compile_s,
    }
