"""Scores of a run, while it trains and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ibgan_jax import data, distributed, metrics, reports
from ibgan_jax.errors import UserError
from ibgan_jax.models.base import ByPlayer, Hparams, Model
from ibgan_jax.training import generated, trained
from ibgan_jax.training.codes import encoder, score_each
from ibgan_jax.training.run import Run
from ibgan_jax.training.state import TrainState
from ibgan_jax.training.telemetry import read_metrics
from ibgan_jax.training.trained import Trained
from ibgan_jax.training.workdir import Workdir

SCORE, DISTANCE = "score/factor_vae", "score/fid"
# The same votes at every evaluation of every run, so that curves compare; `evaluate` draws others,
# so that a checkpoint chosen by its score is not judged by the votes that chose it.
TRAINING_KEY, EVALUATION_KEY = 0, 1
BOUND_DRAWS, BOUND_BATCH = 10_000, 1_000
ACTIVE_VARIANCE = 0.05
REALS = 64  # real images that a report shows, or picks from
# What takes minutes (dci by boosted trees, beta_vae) is for those who ask for it.
METRICS = ("factor_vae", "mig", "dci:linear", "sap", "modularity")
QUICK = ("factor_vae", "mig")  # what a light run ends with


def goal(run: Run) -> str:
    """The tag of what tells a better checkpoint from a worse one."""
    return SCORE if data.has_factors(run.dataset.name) else DISTANCE


def score(
    run: Run, variables: ByPlayer, step: int, log: Callable[[str], Any]
) -> tuple[dict[str, float], float | None]:
    """`score_members` of one."""
    return score_members([run], [variables], step, log)[0]


def score_members(
    runs: Sequence[Run], variables: Sequence[ByPlayer], step: int, log: Callable[[str], Any]
) -> list[tuple[dict[str, float], float | None]]:
    """What training records of each member at an evaluation, and the number by which it is judged.

    The highest is the best. It is the FactorVAE score (`id_gan`) of the representation where the
    factors are known, else FID with its sign turned, at the steps at which the config asks for it.

    Args:
      runs: of one model, data set and mesh.
      variables: each member's, whole on every device.
      step: steps done.
      log: takes what there is to say.
    """
    config = runs[0].config
    due = config.fid.every and step % config.fid.every == 0
    votes: list[metrics.FactorVaeScore | None] = [None] * len(runs)
    if data.has_factors(runs[0].dataset.name):
        votes = score_each(metrics.factor_vae_score, TRAINING_KEY, runs, variables)
    records = []
    for run, own, scored in zip(runs, variables, votes, strict=True):
        record, best = {}, None
        if due:
            path = Path(config.fid.classifier).expanduser()
            images = config.fid.images
            distance = generated.score("fid", run, own, TRAINING_KEY, path, log, images)
            record[DISTANCE], best = distance.value, -distance.value
        if scored is not None:
            record |= {SCORE: scored.value, "score/active_dimensions": len(scored.active)}
            best = scored.value
        records.append((record, best))
    return records


def bounds(run: Run, state: TrainState | Trained, key: int) -> dict[str, Any]:
    """The model's information figures over BOUND_DRAWS real images or draws, in nats.

    At the noise level of the state's step, where there is one.
    """
    hparams = run.model.schedule(run.hparams, state.step)
    indices = some(run.dataset.size, BOUND_DRAWS).reshape(-1, BOUND_BATCH)
    keys = jax.random.split(jax.random.key(key), len(indices))
    parts = [
        _bounds(run.model, state.variables, k, run.dataset.examples(batch), hparams)
        for k, batch in zip(keys, indices, strict=True)
    ]
    mean = jax.tree.map(lambda *x: np.mean(np.stack(x), axis=0), *map(jax.device_get, parts))
    return {name: value.tolist() for name, value in mean.items()}


@partial(jax.jit, static_argnums=0)
def _bounds(
    model: Model, variables: ByPlayer, key: jax.Array, images: jax.Array, hparams: Hparams
) -> dict[str, jax.Array]:
    return model.bounds(variables, key, images, hparams)


def evaluate(
    run: Run,
    workdir: Workdir,
    step: int | None = None,
    log: Callable[[str], Any] = print,
    names: Sequence[str] | None = None,
    classifier: Path | None = None,
    restored: Trained | None = None,
) -> dict[str, Any]:
    """Scores one checkpoint (the newest, or `step`) and writes scores.json.

    `names` are METRIC or METRIC:PROTOCOL, by default METRICS where the factors are known, else FID
    if its classifier is; `classifier` is the path of that network, by default the config's;
    `restored` is what `trained.restore` gives, for who has it already.

    Raises:
      UserError: there is no such checkpoint, metric or classifier, or a data set has no factors to
        score by.
    """
    if classifier is None and run.config.fid.classifier:
        classifier = Path(run.config.fid.classifier).expanduser()
    names = default_metrics([run.dataset.name], classifier) if names is None else names
    check_metrics(names, [run.dataset.name], classifier)
    state = restored or trained.restore(run, workdir, step, log)
    variables, step = state.variables, state.step
    posterior = getattr(run.model, "posterior", None)
    of_generator = [name for name in names if name.partition(":")[0] in generated.METRICS]
    of_codes = [name for name in names if name not in of_generator]
    found = {}
    if of_codes:
        found = metrics.evaluate_all(
            encoder(run, variables),
            run.dataset,
            jax.random.key(EVALUATION_KEY),
            of_codes,
            posterior_of=posterior and jax.jit(lambda images: posterior(variables, images)),
        )
    for name in of_generator:
        found[name] = generated.score(name, run, variables, EVALUATION_KEY, classifier, log)
    information = bounds(run, state, EVALUATION_KEY)
    common = {"protocol": "mean of draws", "draws": BOUND_DRAWS, "checkpoint_step": step}
    active = {
        "value": _active(run, variables, found.get("factor_vae")),
        "protocol": f"variance of the code over the data set of {ACTIVE_VARIANCE} or more",
        "checkpoint_step": step,
    }
    config = run.config
    scores = {
        **{name: {**score.as_dict(), "checkpoint_step": step} for name, score in found.items()},
        "active_dimensions": active,
        **{name: {"value": x, "unit": "nats", **common} for name, x in information.items()},
        "training": history(run, workdir),
        "run": {"model": config.model, "seed": config.seed, "checkpoint_step": step},
    }
    if state.weights:  # rounded, so these scores are not quite those of the checkpoint
        scores["run"]["weights"] = state.weights
    workdir.write_scores(scores)
    distributed.wait_for_all("scores are written")
    return scores


def _active(run: Run, variables: ByPlayer, scored: metrics.Score | None) -> int:
    """How many dimensions vary with the images; the FactorVAE score has counted them."""
    if scored is not None:
        return len(scored.active)
    batches = some(run.dataset.size, BOUND_DRAWS).reshape(-1, metrics.BATCH_SIZE)
    codes = [np.asarray(run.represent(variables, run.dataset.examples(b))) for b in batches]
    return int(np.sum(np.var(np.concatenate(codes), axis=0) >= ACTIVE_VARIANCE))


def default_metrics(datasets: Sequence[str], classifier: Path | None) -> tuple[str, ...]:
    """What runs on these data sets are scored by, unless told otherwise."""
    if all(data.has_factors(name) for name in datasets):
        return METRICS
    return ("fid",) if classifier else ()


def check_metrics(
    names: Sequence[str], datasets: Sequence[str], classifier: Path | None = None
) -> None:
    """Finds out now what would stop an evaluation later.

    Raises:
      UserError: a name is no METRIC or METRIC:PROTOCOL, or asks for factors that one of `datasets`
        does not have; factor_vae is not among them where all have; or FID is but its classifier is
        not there or has learned another data set than one of `datasets`.
    """
    protocols = {**metrics.PROTOCOLS, **generated.METRICS, **metrics.RANKINGS}
    for name in names:
        metric, _, protocol = name.partition(":")
        if metric not in protocols:
            raise UserError(f"unknown metric {name!r}; choose from: {', '.join(protocols)}")
        if protocol and protocol not in protocols[metric]:
            known = ", ".join(protocols[metric])
            raise UserError(f"unknown protocol {protocol!r} of {metric}; choose one of: {known}")
    unlabelled = [name for name in datasets if not data.has_factors(name)]
    for name in names:
        if unlabelled and name.partition(":")[0] not in generated.METRICS:
            raise UserError(
                f"{unlabelled[0]} has no ground-truth factors to score {name} by; "
                f"choose from: {', '.join(generated.METRICS)}"
            )
    if "factor_vae" not in names and not unlabelled:
        raise UserError("the metrics must include factor_vae, by which checkpoints are compared")
    generated.check(names, datasets, classifier)


def history(run: Run, workdir: Workdir) -> dict[str, Any]:
    """Best, median and last score over the checkpoints that training scored itself."""
    found = reports.best_and_median(read_metrics(workdir.metrics), goal(run))
    if found is None:
        return {}
    best_step, best, median, last = found
    return {"best_step": best_step, "best": best, "median": median, "last": last}


def progress_images(run: Run, state: TrainState) -> dict[str, np.ndarray]:
    """Makes pictures uint8 [H, W, C]: samples, and the latent traversals of one real image."""
    images, _ = reports.traversals(
        run.generate, run.represent, state.variables, _shares(run, state), starts(run, 1)
    )
    return {
        "samples": reports.tile(reports.samples(run.generate, state.variables, run.model), 8),
        "traversals": reports.traversal_image(images[0]),
    }


def starts(run: Run, count: int = reports.STARTS) -> np.ndarray:
    """Real images [count, H, W, C] whose codes are traversed: the same, unlike ones every time."""
    return reports.unlike(run.dataset.examples(some(run.dataset.size, REALS)), count)


def _shares(run: Run, state: TrainState) -> np.ndarray:
    """The nats [d] that each dimension carries, from one batch."""
    hparams = run.model.schedule(run.hparams, state.step)
    images = run.dataset.examples(some(run.dataset.size, BOUND_BATCH))
    key = jax.random.key(TRAINING_KEY)
    return np.asarray(_share_only(run.model, state.variables, key, images, hparams))


@partial(jax.jit, static_argnums=0)
def _share_only(
    model: Model, variables: ByPlayer, key: jax.Array, images: jax.Array, hparams: Hparams
) -> jax.Array:
    """Under jit the images and bounds that are not asked for cost nothing."""
    return model.bounds(variables, key, images, hparams)[model.share]


def current_scores(run: Run, workdir: Workdir, step: int | None, log: Callable) -> dict[str, Any]:
    """scores.json if it is about a checkpoint (`step`) that is still there, else made anew.

    The scores that come with weights.npz serve too: they were taken before it was rounded.
    """
    try:
        scores = workdir.read_scores()
    except UserError:
        log(f"{workdir.scores} is damaged; scoring again")
        scores = None
    if scores is not None:
        about = scores["run"]["checkpoint_step"]
        if about in trained.steps(workdir) and step in (None, about):
            return scores
    return evaluate(run, workdir, step, log)


def some(size: int, count: int) -> np.ndarray:
    """The same `count` of `size` examples every time, none twice if there are enough."""
    return np.random.default_rng(0).choice(size, count, replace=count > size)
