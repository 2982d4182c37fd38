"""Finished runs side by side: scored alike, ranked, in one table and on one page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ibgan_jax import distributed, reports
from ibgan_jax.errors import UserError
from ibgan_jax.reports import table
from ibgan_jax.training import evaluation, selection, trained
from ibgan_jax.training.run import Run, build
from ibgan_jax.training.telemetry import read_metrics
from ibgan_jax.training.workdir import Workdir

Log = Callable[[str], Any]


def find(paths: Sequence[Path]) -> list[Workdir]:
    """The runs that `paths` name; a folder of runs stands for all of them.

    Raises:
      UserError: a path holds neither a run nor runs.
    """
    found = []
    for path in paths:
        inside = sorted(config.parent for config in Path(path).glob("*/config.json"))
        if (Path(path) / "config.json").exists():
            inside = [Path(path)]
        if not inside:
            raise UserError(f"{path} holds no run: there is no config.json in it")
        found += [Workdir(folder) for folder in inside]
    return found


def evaluate(
    workdirs: Sequence[Workdir],
    step: int | None,
    names: Sequence[str] | None = None,
    log: Log = print,
    classifier: Path | None = None,
) -> None:
    """Scores every run and prints, and writes, one table of them; a study's page is drawn anew.

    The files lie in the folder of a single run, else in the one that all have in common. `names`
    are those of `evaluation.evaluate` and of `selection.rank`; by default the former's, and the
    latter's for two runs or more.

    Raises:
      UserError: a run without checkpoints, an unknown metric, a classifier that FID lacks or
        cannot use, or scores that do not belong in one table.
    """
    recorded = [workdir.must_exist() for workdir in workdirs]
    datasets = [record["config"]["dataset"]["name"] for record in recorded]
    ranked_by, names = selection.split(names, datasets, classifier)
    evaluation.check_metrics(names, datasets, classifier)
    left = []
    for workdir, record in zip(workdirs, recorded, strict=True):
        if not trained.steps(workdir):
            if workdir.diverged.exists():
                log(f"{workdir.path} diverged before its first checkpoint: left out")
                continue
            if workdir.scores.exists():  # it was unpacked, and its weights were removed
                log(f"{workdir.path} has scores and no weights: left out")
                continue
        trained.check_step(workdir, step)
        left.append((workdir, record["config"]))
    if not left:
        raise UserError("none of these runs has a checkpoint to score")
    runs = list(_runs([config for _, config in left], log))
    for run, (workdir, _) in zip(runs, left, strict=True):
        log(f"scoring {workdir.path}")
        evaluation.evaluate(run, workdir, step, log, names, classifier)
    scored = [workdir for workdir, _ in left]
    home = scored[0].path if len(scored) == 1 else Path(_common([w.path for w in scored]))
    within = Workdir(home)
    of_study = within.study.exists()
    _write(_rows(with_scores(within) if of_study else scored, within), home, log)
    selection.rank(runs, scored, home, ranked_by, log)
    if of_study:
        _draw(within, log)


def _runs(configs: Sequence[dict[str, Any]], log: Log) -> Iterator[Run]:
    """A run for each config; those that differ in seed and hparams alone share a data set."""
    from ml_collections import ConfigDict

    built: dict[str, Run] = {}
    for config in configs:
        free = {"name", "seed", "hparams", "train", "grid", "population"}
        kind = json.dumps({key: x for key, x in config.items() if key not in free})
        made = ConfigDict(config)
        if kind not in built:
            built[kind] = build(made, log)
        yield built[kind].of(made)


def _common(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds them all."""
    parents = [set(folder.resolve().parents) for folder in folders]
    return max(set.intersection(*parents), key=lambda path: len(path.parts))


def _published(workdir: Workdir) -> table.Published | None:
    if not workdir.study.exists():
        return None
    return json.loads(workdir.study.read_text())["config"].get("published")


def with_scores(study: Workdir) -> list[Workdir]:
    """Those of its runs that have scores."""
    return [run for run in find([study.path]) if run.scores.exists()]


def _rows(workdirs: Sequence[Workdir], home: Workdir) -> list[table.Row]:
    return table.gather([_entry(workdir) for workdir in workdirs], _published(home))


def _entry(workdir: Workdir) -> table.Entry:
    return table.Entry(workdir.path, workdir.must_exist()["config"], workdir.read_scores())


def _write(rows: Sequence[table.Row], home: Path, log: Log) -> None:
    if distributed.is_main_process():
        with Workdir(home).explained():
            table.write(rows, home)
    log(table.markdown(rows))
    log(f"table: {home / 'table.md'}, .csv and .json")


def report(workdir: Workdir, log: Log = print) -> None:
    """The table and the page of a study: curves over seeds, sweeps, and links to every run.

    Raises:
      UserError: the folder is no study, or none of its runs is scored.
    """
    if not distributed.is_main_process():
        return
    if not workdir.study.exists():
        raise UserError(f"{workdir.path} holds no study: there is no {workdir.study.name} in it")
    _write(_rows(with_scores(workdir), workdir), workdir.path, log)
    _draw(workdir, log)


def _draw(workdir: Workdir, log: Log) -> None:
    """The page of a study."""
    if not distributed.is_main_process():
        return
    entries = [_entry(run) for run in with_scores(workdir)]
    records = {entry.path: read_metrics(Workdir(entry.path).metrics) for entry in entries}
    figures = list(_figures(workdir, entries, records))
    recorded = json.loads(workdir.study.read_text())
    diverged = {
        run.path.name: json.loads(run.diverged.read_text())["reason"]
        for run in find([workdir.path])
        if run.diverged.exists()
    }
    notes = [
        "Means over seeds with one standard deviation; best, median and last are over the "
        "checkpoints that training scored.",
        *(f"{name} diverged: {reason}." for name, reason in diverged.items()),
    ]
    tables = [
        ("Scores", table.cells(table.gather(entries, _published(workdir)))),
        ("Runs", _members(entries)),
    ]
    if chosen := selection.table(workdir):
        tables.insert(1, ("Chosen without labels", chosen))
    reports.write_report(
        workdir.report,
        f"{recorded['config']['name']}: {len(entries)} runs",
        [("runs", len(entries)), ("diverged", len(diverged))],
        figures,
        recorded["config"],
        {},
        notes,
        {**recorded["versions"], **recorded["device"], "commit": recorded["commit"]},
        tables,
    )
    log(f"report: {workdir.report}")


def _members(entries: Sequence[table.Entry]) -> list[list]:
    """A line for each run, with a link to its page."""
    lines: list[list] = [["run", "step", *table.TRAINING, "fresh votes"]]
    for entry in entries:
        scores, name = entry.scores, entry.path.name
        numbers = [scores["training"].get(key) for key in table.TRAINING.values()]
        numbers.append(scores.get("factor_vae", {}).get("value"))
        shown = ["-" if number is None else f"{number:.3f}" for number in numbers]
        step = f"{scores['run']['checkpoint_step']:,}"
        lines.append([(name, f"{name}/report.html"), step, *shown])
    return lines


def _name(group: table.Group) -> str:
    """What sets these runs apart, short enough for a curve."""
    told = (f"{key.removeprefix('hparams.')} {value}" for key, value in group.apart.items())
    return ", ".join(told) or group.kind[-1]


def _apart(group: table.Group) -> list:
    """To sort groups by: numbers as numbers."""

    def number(text: str) -> tuple[float, str]:
        try:
            return float(text), ""
        except ValueError:
            return math.inf, text

    return [number(value) for value in group.apart.values()]


def _figures(
    workdir: Workdir, entries: Sequence[table.Entry], records: dict[Path, list]
) -> Iterator[tuple[Path, str, str]]:
    """(PNG, title, caption): curves of each system, and its sweep where one number was varied."""
    groups = table.grouped(entries)
    for kind in dict.fromkeys(group.kind for group in groups):
        own = sorted((g for g in groups if g.kind == kind), key=_apart)
        stem, title = "-".join(kind), ", ".join(kind)
        curves = {_name(g): [records[entry.path] for entry in g.entries] for g in own}
        path = workdir.figures / f"{stem}-curves.png"
        reports.spread_figure(path, curves, evaluation.SCORE)
        yield path, f"{title}: over training", reports.CAPTIONS["spread"]
        keys = {key for group in own for key in group.apart}
        if len(keys) == 1 and (key := keys.pop()).startswith("hparams."):
            name = key.removeprefix("hparams.")
            runs = {
                float(group.apart[key]): curve
                for group, curve in zip(own, curves.values(), strict=True)
            }
            path = workdir.figures / f"{stem}-{name}.png"
            reports.sweep_figure(path, runs, name, evaluation.SCORE)
            yield path, f"{title}: against {name}", reports.CAPTIONS["sweep"]
