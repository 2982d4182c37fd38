"""Many runs as one piece of work: trained one after another, scored and put into one table.

A study's config names experiments (files beside it), models and seeds; its folder holds a run for
each of their combinations, and `study.json`, which says what belongs to it.
"""

from __future__ import annotations

import itertools
import json
import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibgan_jax import config as configs
from ibgan_jax import models
from ibgan_jax.errors import UserError
from ibgan_jax.reports import table
from ibgan_jax.training import evaluation, loop
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Log = Callable[[str], Any]
RECORD = "study.json"


def is_study(config: ConfigDict | None) -> bool:
    """Whether the config is one of many runs."""
    return config is not None and "study" in config


def members(config: ConfigDict, experiments: Path) -> Iterator[tuple[str, ConfigDict]]:
    """(folder, config) of every run; experiment NAME is the file NAME.py in `experiments`.

    With `study.grid` a system trains once with every value of its own published grid.

    Raises:
      UserError: an experiment, a model or a seed that cannot be.
    """
    study = config.study
    for name in study.models:
        models.get(name)
    for experiment in study.experiments:
        path = experiments / f"{experiment}.py"
        if not path.is_file():
            raise UserError(f"study.experiments: there is no {path}")
        get_config = runpy.run_path(str(path))["get_config"]
        for name in study.models:
            grid = get_config(name).grid.to_dict() if study.grid else {}
            for weights in itertools.product(*grid.values()):
                chosen = dict(zip(grid, weights, strict=True))
                for seed in study.seeds:
                    yield _member(config, get_config(name), chosen, seed)


def _member(
    config: ConfigDict, made: ConfigDict, weights: dict[str, float], seed: int
) -> tuple[str, ConfigDict]:
    """An experiment's config with what the study says of it, and the folder of its run."""
    made.seed = seed
    made.hparams.update(weights)
    made.dataset.dir = config.dataset.dir
    made.dataset.source = config.dataset.source
    for key, value in config.train.items():
        if value:  # 0 leaves each recipe its own
            made.train[key] = value
    configs.check(made)
    told = "".join(f"-{key}{value:g}" for key, value in weights.items())
    return f"{made.name}-{made.model}{told}-seed{seed}", made


def train(config: ConfigDict, experiments: Path, workdir: Workdir, log: Log = print) -> None:
    """Trains whatever of the study is not finished yet, and writes its table.

    Raises:
      UserError: anything the user can put right, before any work starts.
      InterruptedRunError: after SIGINT or SIGTERM, with the state saved; the same command goes on.
    """
    runs = list(members(config, experiments))
    workdir.create()
    workdir.write_json(workdir.path / RECORD, {"config": config.to_dict()})
    for number, (name, member) in enumerate(runs, 1):
        folder = Workdir(workdir.path / name)
        log(f"run {number} of {len(runs)}: {folder.path}")
        if _finished(member, folder):
            log("finished before")
            continue
        try:
            loop.train(member, folder, log)
        except loop.DivergedError as error:
            log(f"{error}; the study goes on without it")
    write_table(workdir, log)


def _finished(member: ConfigDict, folder: Workdir) -> bool:
    """Whether a run's last step has its scores and its report."""
    recorded = folder.recorded()
    if recorded is None or not (folder.scores.exists() and folder.report.exists()):
        return False
    configs.check_same(recorded["config"], member, folder.path)
    scored = json.loads(folder.scores.read_text())["run"]["checkpoint_step"]
    return scored == member.train.steps


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
    names: Sequence[str],
    log: Log = print,
    classifier: Path | None = None,
) -> None:
    """Scores every run and prints, and writes, one table of them.

    Its files lie in the folder of a single run, else in the one that all have in common.

    Raises:
      UserError: a run without checkpoints, an unknown metric, a classifier that FID lacks or
        cannot use, or scores that do not belong in one table.
    """
    from ml_collections import ConfigDict

    recorded = [workdir.must_exist() for workdir in workdirs]
    datasets = [record["config"]["dataset"]["name"] for record in recorded]
    evaluation.check_metrics(names, datasets, classifier)
    for workdir in workdirs:
        steps = Checkpoints(workdir.checkpoints).steps()
        if not steps:
            raise UserError(f"{workdir.path} holds no checkpoint yet; train first")
        if step is not None and step not in steps:
            raise UserError(f"no checkpoint {step} in {workdir.checkpoints}; there are: {steps}")
    for workdir, record in zip(workdirs, recorded, strict=True):
        log(f"scoring {workdir.path}")
        run = build(ConfigDict(record["config"]), log)
        evaluation.evaluate(run, workdir, step, log, names, classifier)
    folders = [workdir.path.resolve() for workdir in workdirs]
    one = len(folders) == 1
    home = workdirs[0].path if one else Path(_common(folders))
    _write(workdirs, home, None, log)


def _common(folders: Sequence[Path]) -> Path:
    """The deepest folder that holds them all."""
    parents = [set(folder.parents) for folder in folders]
    return max(set.intersection(*parents), key=lambda path: len(path.parts))


def write_table(workdir: Workdir, log: Log = print) -> None:
    """The table of a study's scored runs, with the paper's values beside ours.

    Raises:
      UserError: the folder is no study, or none of its runs is scored.
    """
    path = workdir.path / RECORD
    if not path.exists():
        raise UserError(f"{workdir.path} holds no study: there is no {RECORD} in it")
    published = json.loads(path.read_text())["config"]["published"]
    scored = [found for found in find([workdir.path]) if found.scores.exists()]
    _write(scored, workdir.path, published, log)


def _write(
    workdirs: Sequence[Workdir], home: Path, published: table.Published | None, log: Log
) -> None:
    entries = [
        table.Entry(
            workdir.path, workdir.must_exist()["config"], json.loads(workdir.scores.read_text())
        )
        for workdir in workdirs
    ]
    rows = table.gather(entries, published)
    table.write(rows, home)
    log(table.markdown(rows))
    log(f"table: {home / 'table.md'}, .csv and .json")
