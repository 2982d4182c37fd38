"""One table of many runs: rows are systems on data sets, columns metrics, cells means over seeds.

It is written as JSON (every number), CSV and Markdown. Scores of different protocols or settings
never stand in one column.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ibgan_jax.errors import UserError
from ibgan_jax.reports.figures import atomic
from ibgan_jax.reports.html import flatten

#: Best, median and last of the score over the checkpoints of a run; papers report the best.
TRAINING = {"best": "best", "median": "median", "last": "last"}
HEADLINE = "best"
# How long a run is and how it was run, not what it computes.
FREE_SETTINGS = ("train.steps", "train.max_minutes", "train.light", "population.at_once")
# Runs that differ in these alone are one row; steps are shown with it.
SAME_ROW = ("seed", "dataset.dir", "dataset.source", *FREE_SETTINGS)
Published = Mapping[str, Mapping[str, float]]  # data set -> system -> the paper's value


@dataclasses.dataclass(frozen=True)
class Entry:
    """One finished run: where it lies, its resolved config and its scores.json."""

    path: Path
    config: Mapping[str, Any]
    scores: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone.

    Attributes:
      experiment: the config's name. dataset, system: what was learned, by what.
      seeds: of its runs. steps: of the checkpoints that were scored, smallest and largest.
      values: column -> one number a run; a run that lacks it is left out.
      published: the paper's value of the headline column, if it gives one.
    """

    experiment: str
    dataset: str
    system: str
    seeds: tuple[int, ...]
    steps: tuple[int, int]
    values: dict[str, list[float]]
    published: float | None = None

    def mean(self, column: str) -> float:
        return float(np.mean(self.values[column]))

    def deviation(self, column: str) -> float | None:
        """Over seeds, with n - 1; None of a single run."""
        values = self.values[column]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def gather(entries: Sequence[Entry], published: Published | None = None) -> list[Row]:
    """Rows in the order in which their systems first come.

    Raises:
      UserError: there are no runs, a seed comes twice, or scores of different protocols or settings
        would stand in one column.
    """
    if not entries:
        raise UserError("there are no runs to make a table of")
    _check_protocols(entries)
    return [_row(group, published or {}) for group in grouped(entries)]


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
      kind: experiment, data set and system.
      apart: the settings, as text, in which it differs from others of its kind.
      entries: the runs.
    """

    kind: tuple[str, str, str]
    apart: dict[str, str]
    entries: list[Entry]

    @property
    def label(self) -> str:
        """The system, and what sets these runs apart."""
        told = ", ".join(f"{key}={value}" for key, value in self.apart.items())
        return self.kind[-1] + (f" ({told})" if told else "")


def grouped(entries: Sequence[Entry]) -> list[Group]:
    """The groups of all entries, in the order in which they first come."""
    found: dict[tuple, list[Entry]] = {}
    for entry in entries:
        found.setdefault(tuple(sorted(_settings(entry).items())), []).append(entry)
    settings = [dict(group) for group in found]
    kinds = [(s["name"], s["dataset.name"], s["model"]) for s in settings]
    groups = []
    for own, kind, members in zip(settings, kinds, found.values(), strict=True):
        alike = [s for s, other in zip(settings, kinds, strict=True) if other == kind]
        apart = {k: x for k, x in own.items() if any(s.get(k) != x for s in alike)}
        groups.append(Group(kind, apart, members))
    return groups


def _settings(entry: Entry) -> dict[str, str]:
    """All that makes two runs different, the seed and where data lie apart, as text."""
    flat = flatten(entry.config)
    return {key: str(value) for key, value in flat if key not in SAME_ROW}


def _row(group: Group, published: Published) -> Row:
    name, dataset, model = group.kind
    seen: dict[int, Path] = {}
    for entry in group.entries:
        seed = entry.config["seed"]
        if seed in seen:
            raise UserError(
                f"{seen[seed]} and {entry.path} are both {name}, {group.label}, with seed {seed}; "
                "a table takes one of them"
            )
        seen[seed] = entry.path
    steps = [entry.scores["run"]["checkpoint_step"] for entry in group.entries]
    values: dict[str, list[float]] = {}
    for entry in group.entries:
        for column, value in _numbers(entry.scores).items():
            values.setdefault(column, []).append(value)
    paper = published.get(dataset, {}).get(model)
    return Row(name, dataset, group.label, tuple(seen), (min(steps), max(steps)), values, paper)


def _numbers(scores: Mapping[str, Any]) -> dict[str, float]:
    """The columns of one run: what training scored, then every metric with a single value."""
    found = {name: scores["training"][key] for name, key in TRAINING.items() if scores["training"]}
    for name, record in scores.items():
        value = record.get("value") if isinstance(record, Mapping) else None
        if isinstance(value, int | float):
            found[name] = value
    return found


def _check_protocols(entries: Sequence[Entry]) -> None:
    first: dict[str, tuple[Any, Path]] = {}
    for entry in entries:
        for name, record in entry.scores.items():
            if not isinstance(record, Mapping) or "protocol" not in record:
                continue
            how = {key: record.get(key) for key in ("protocol", "settings", "draws")}
            known, where = first.setdefault(name, (how, entry.path))
            if known != how:
                raise UserError(
                    f"{name} has protocol {known['protocol']} in {where} and {how['protocol']} in "
                    f"{entry.path}, or other settings; score them alike: --mode=evaluate"
                )


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table of `cells`."""
    heads, *lines = ("| " + " | ".join(line) + " |" for line in cells(rows))
    rule = "|" + "---|" * (heads.count("|") - 1)
    return "\n".join([heads, rule, *lines]) + "\n"


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Heads, then a line a row: mean +- deviation over seeds, the paper's value by the best."""
    columns = _columns(rows)
    paper = any(row.published is not None for row in rows)
    heads = ["experiment", "data set", "system", "seeds", "steps", HEADLINE]
    heads += ["paper", "difference"] if paper else []
    heads += [column for column in columns if column != HEADLINE]
    lines = [heads]
    for row in rows:
        low, high = row.steps
        steps = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        line = [
            row.experiment,
            row.dataset,
            row.system,
            str(len(row.seeds)),
            steps,
            _cell(row, HEADLINE),
        ]
        if paper:
            line += _beside_paper(row)
        line += [_cell(row, column) for column in columns if column != HEADLINE]
        lines.append(line)
    return lines


def _beside_paper(row: Row) -> list[str]:
    if row.published is None:
        return ["-", "-"]
    if HEADLINE not in row.values:
        return [f"{row.published:.2f}", "-"]
    return [f"{row.published:.2f}", f"{row.mean(HEADLINE) - row.published:+.2f}"]


def _cell(row: Row, column: str) -> str:
    if column not in row.values:
        return "-"
    deviation = row.deviation(column)
    return f"{row.mean(column):.3f}" + ("" if deviation is None else f" +- {deviation:.3f}")


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row.values))


def write(rows: Sequence[Row], folder: Path, stem: str = "table") -> None:
    """STEM.json, STEM.csv and STEM.md in `folder`."""
    records = [{**dataclasses.asdict(row), "mean": _means(row)} for row in rows]
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    columns = _columns(rows)
    spread = [f"{column} {part}" for column in columns for part in ("mean", "deviation")]
    heads = ["experiment", "dataset", "system", "seeds", "first_step", "last_step", "published"]
    writer.writerow([*heads, *spread])
    for row in rows:
        head = [row.experiment, row.dataset, row.system, len(row.seeds), *row.steps, row.published]
        cells = [
            number
            for column in columns
            for number in (
                (row.mean(column), row.deviation(column)) if column in row.values else ("", "")
            )
        ]
        writer.writerow(["" if cell is None else cell for cell in [*head, *cells]])
    contents = {
        "json": json.dumps(records, indent=2) + "\n",
        "csv": sheet.getvalue(),
        "md": markdown(rows),
    }
    for suffix, text in contents.items():
        with atomic(folder / f"{stem}.{suffix}") as temporary:
            temporary.write_text(text, encoding="utf-8")


def _means(row: Row) -> dict[str, dict[str, float | None]]:
    return {c: {"mean": row.mean(c), "deviation": row.deviation(c)} for c in row.values}
