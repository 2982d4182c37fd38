"""Choosing among runs of one system without labels, and how well that agrees with the scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ibgan_jax import metrics
from ibgan_jax.errors import UserError
from ibgan_jax.metrics.encoding import BATCH_SIZE
from ibgan_jax.training import evaluation, trained
from ibgan_jax.training.run import Run
from ibgan_jax.training.workdir import Workdir

RECORD = "selection.json"
UDR_IMAGES = 2_000
# Every member's images go to every other: 32 members are 1,024 pairs of 3,488 images.
CENTRALITY_LIMIT = 32


def split(
    names: Sequence[str] | None, datasets: Sequence[str], classifier: Path | None
) -> tuple[list[str], list[str]]:
    """(what ranks runs, what scores each) of METRIC or METRIC:PROTOCOL; None is the default.

    `datasets` names each run's, `classifier` is FID's network if there is one.

    Raises:
      UserError: a ranking is asked for of a single run.
    """
    if names is None:
        ranked = list(metrics.RANKINGS) if len(datasets) > 1 else []
        return ranked, list(evaluation.default_metrics(datasets, classifier))
    ranked = [name for name in names if name.partition(":")[0] in metrics.RANKINGS]
    if ranked and len(datasets) < 2:
        raise UserError(f"{ranked[0]} compares runs with each other; name two or more")
    return ranked, [name for name in names if name not in ranked]


def rank(
    runs: Sequence[Run],
    workdirs: Sequence[Workdir],
    home: Path,
    names: Sequence[str],
    log: Callable[[str], Any] = print,
) -> None:
    """Ranks scored runs of one system, prints that, and writes selection.json into `home`.

    UDR compares runs that differ in their seeds alone, ModelCentrality all of them. Runs of several
    systems, data sets or code sizes are not ranked, nor are settings with a single seed by UDR.
    """
    if not names or len(runs) < 2:
        return
    kinds = {(run.config.model, run.config.dataset.name, run.model.code_dim) for run in runs}
    if len(kinds) > 1:
        log("not ranked without labels: these runs are not all of one system on one data set")
        return
    scores = [workdir.read_scores() for workdir in workdirs]
    nats = np.array([s[run.model.share]["value"] for s, run in zip(scores, runs, strict=True)])
    variables = [
        trained.restore(run, workdir, s["run"]["checkpoint_step"], log).variables
        for run, workdir, s in zip(runs, workdirs, scores, strict=True)
    ]
    members = [workdir.path.name for workdir in workdirs]
    record: dict[str, Any] = {"members": members}
    for name in names:
        metric, _, protocol = name.partition(":")
        ranking = _udr if metric == "udr" else _centrality
        found = ranking(runs, variables, nats, protocol, log)
        if found is not None:
            record[name] = found | _agreement(found["values"], scores, members)
    Workdir(home).write_json(home / RECORD, record)
    for line in told(record):
        log(line)


def _udr(
    runs: Sequence[Run], variables: Sequence, nats: np.ndarray, protocol: str, log: Callable
) -> dict[str, Any] | None:
    """UDR within each setting; a member whose setting has no other seed gets None."""
    run = runs[0]
    indices = evaluation.some(run.dataset.size, UDR_IMAGES).reshape(-1, BATCH_SIZE)
    codes = np.stack(
        [
            np.concatenate([run.represent(v, run.dataset.examples(i)) for i in indices])
            for v in variables
        ]
    )
    settings = [json.dumps(run.config.hparams.to_dict(), sort_keys=True) for run in runs]
    values: list[float | None] = [None] * len(runs)
    for setting in dict.fromkeys(settings):
        places = [i for i, other in enumerate(settings) if other == setting]
        if len(places) < 2:
            continue
        found = metrics.udr(codes[places], nats[places], protocol or "spearman")
        for place, value in zip(places, found.values, strict=True):
            values[place] = float(value)
        record = {"protocol": found.protocol, "settings": found.settings}
    if all(value is None for value in values):
        log("no UDR: no two runs differ in their seeds alone")
        return None
    return {**record, "images": UDR_IMAGES, "values": values}


def _centrality(
    runs: Sequence[Run], variables: Sequence, nats: np.ndarray, protocol: str, log: Callable
) -> dict[str, Any] | None:
    run = runs[0]
    if len(runs) > CENTRALITY_LIMIT and not protocol:
        log(
            f"no ModelCentrality of {len(runs)} runs, each against each; "
            "--metrics=factor_vae,model_centrality:short does it all the same"
        )
        return None
    generators = [partial(run.generate, v) for v in variables]
    encoders = [partial(run.represent, v) for v in variables]
    key = jax.random.key(evaluation.EVALUATION_KEY)
    log(f"ModelCentrality of {len(runs)} runs, each against each")
    return metrics.model_centrality(generators, encoders, nats, key, protocol or "short").as_dict()


def _agreement(
    values: Sequence[float | None], scores: Sequence[dict], members: Sequence[str]
) -> dict[str, Any]:
    """The member to choose, and the rank correlation with every supervised score."""
    best = int(np.nanargmax(np.array(values, float)))
    supervised = [name for name in scores[0] if name.partition(":")[0] in metrics.PROTOCOLS]
    columns = {name: [score[name]["value"] for score in scores] for name in supervised}
    return {
        "chosen": members[best],
        "its_scores": {name: column[best] for name, column in columns.items()},
        "rank_correlation": {
            name: metrics.rank_correlation(values, column) for name, column in columns.items()
        },
    }


def told(record: dict[str, Any]) -> list[str]:
    """selection.json in words: a line for each ranking."""
    lines = []
    for name, entry in record.items():
        if name == "members":
            continue
        correlations = ", ".join(
            f"{metric} {'-' if value is None else format(value, '+.2f')}"
            for metric, value in entry["rank_correlation"].items()
        )
        own = ", ".join(f"{metric} {value:.3f}" for metric, value in entry["its_scores"].items())
        lines.append(f"{name} chooses {entry['chosen']} ({own})")
        lines.append(f"  rank correlation of {name} with {correlations}")
    return lines


def table(workdir: Workdir) -> list[list[str]] | None:
    """The rankings of selection.json, a line for each run; None where there is none."""
    path = workdir.path / RECORD
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    names = [name for name in record if name != "members"]
    rows = [["run", *names]]
    for place, member in enumerate(record["members"]):
        values = [record[name]["values"][place] for name in names]
        marks = [" (chosen)" if record[name]["chosen"] == member else "" for name in names]
        shown = ["-" if value is None else f"{value:.3f}" for value in values]
        rows.append([member, *(value + mark for value, mark in zip(shown, marks, strict=True))])
    return rows
