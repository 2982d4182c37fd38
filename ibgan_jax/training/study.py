"""Many runs as one piece of work: named, and trained together.

A study is one or more populations: an ordinary config with a `population`, or a config that names
experiments (files beside it), models and seeds. Its folder holds a run for each member, which is
as if it had been trained alone, and `study.json`, which says what belongs to it.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibgan_jax import config as configs
from ibgan_jax import models
from ibgan_jax.errors import UserError
from ibgan_jax.training import comparison, loop
from ibgan_jax.training.deadline import START, Deadline, TimeIsUpError
from ibgan_jax.training.member import DivergedError
from ibgan_jax.training.timing import REPORT, TABLE, Timing, accounting
from ibgan_jax.training.workdir import Workdir, environment

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Log = Callable[[str], Any]


def is_study(config: ConfigDict | None) -> bool:
    """Whether the config is one of many runs."""
    return config is not None and ("study" in config or any(configs.varied(config).values()))


def folder(config: ConfigDict) -> str:
    """The default name of the folder that the config's training fills."""
    if "study" in config:
        return config.name
    last = "population" if is_study(config) else f"seed{config.seed}"
    return f"{config.name}-{config.model}-{last}"


def populations(config: ConfigDict, experiments: Path) -> Iterator[ConfigDict]:
    """The configs of the study, each with its population.

    Experiment NAME is the file NAME.py in `experiments`. With `study.grid` a system trains with
    every value of its own published grid.

    Raises:
      UserError: an experiment, a model, a value or a seed that cannot be.
    """
    if "study" not in config:
        configs.check(config)
        yield config
        return
    study = config.study
    for name in study.models:
        models.get(name)
    for experiment in study.experiments:
        path = experiments / f"{experiment}.py"
        if not path.is_file():
            raise UserError(f"study.experiments: there is no {path}")
        get_config = runpy.run_path(str(path))["get_config"]
        for name in study.models:
            made = get_config(name)
            made.population.seeds = tuple(study.seeds)
            made.population.update(made.grid if study.grid else {})
            yield _adapted(made, config)


def _adapted(made: ConfigDict, config: ConfigDict) -> ConfigDict:
    """An experiment's config with what the study says of it."""
    made.dataset.dir = config.dataset.dir
    made.dataset.source = config.dataset.source
    for key, value in config.train.items():
        if value:  # 0 leaves each recipe its own
            made.train[key] = value
    made.population[configs.AT_ONCE] = config.get("population", {}).get(configs.AT_ONCE, 0)
    configs.check(made)
    return made


def train(
    config: ConfigDict,
    experiments: Path,
    workdir: Workdir,
    log: Log = print,
    started: float | None = None,
) -> None:
    """Trains whatever of the study is not finished yet, and reports on all of it.

    `train.max_minutes` counts from `started`, a moment of time.monotonic, by default now.

    Raises:
      UserError: anything the user can put right, before any work starts.
      InterruptedRunError: after SIGINT or SIGTERM, with the state saved; the same command goes on.
      TimeIsUpError: at the end of `train.max_minutes`, with what there is scored and reported.
    """
    named = list(populations(config, experiments))
    for population in named:
        for name, _ in configs.members(population):
            loop.refuse_weights(Workdir(workdir.path / name))
    workdir.create()
    workdir.write_json(workdir.study, {"config": config.to_dict(), **environment()})
    timing = Timing(started)
    deadline = Deadline(config.train.get("max_minutes", 0.0), timing)
    with accounting(timing, workdir, log):
        try:
            deadline.kept = deadline.estimate(TABLE)
            _train_all(named, workdir, deadline, log)
        except TimeIsUpError:
            if comparison.with_scores(workdir):
                _report(workdir, timing, log)
            raise
        _report(workdir, timing, log)


def _report(workdir: Workdir, timing: Timing, log: Log) -> None:
    with timing.phase(REPORT, piece=TABLE):
        comparison.report(workdir, log)


def _train_all(named: Sequence[ConfigDict], workdir: Workdir, deadline: Deadline, log: Log) -> None:
    for number, population in enumerate(named, 1):
        runs = [(c, Workdir(workdir.path / name)) for name, c in configs.members(population)]
        left = [(c, run) for c, run in runs if not (_finished(c, run) or _given_up(run, log))]
        log(
            f"population {number} of {len(named)}: {population.model} on {population.name}, "
            f"{len(left)} of {len(runs)} runs to train"
        )
        starting = deadline.estimate(START) + deadline.estimate(REPORT, len(left))
        if left and deadline.timing.trained and deadline.reached(starting):
            raise deadline.error(f"time is up before population {number} of {len(named)}")
        try:
            if left:
                loop.train_together(left, log, deadline)
        except DivergedError as error:
            log(f"no run of this population is left: {error}")


def _given_up(run: Workdir, log: Log) -> bool:
    """Whether it diverged before, as it would again."""
    if run.diverged.exists():
        log(f"{run.path} diverged before; remove {run.diverged.name} to try it again")
    return run.diverged.exists()


def _finished(member: ConfigDict, folder: Workdir) -> bool:
    """Whether a run's last step has its scores and, unless it is light, its report."""
    recorded, scores = folder.recorded(), folder.read_scores()
    reported = member.train.light or folder.report.exists()
    if recorded is None or scores is None or not reported:
        return False
    configs.check_same(recorded["config"], member, folder.path)
    return scores["run"]["checkpoint_step"] == member.train.steps
