"""Scores and pictures of a run, while it trains and afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ibgan_jax import metrics, reports
from ibgan_jax.errors import UserError
from ibgan_jax.models.base import ByPlayer, Hparams, Model
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.run import Run
from ibgan_jax.training.state import TrainState
from ibgan_jax.training.telemetry import read_metrics
from ibgan_jax.training.workdir import Workdir

SCORE = "score/factor_vae"
# The same votes at every evaluation of every run, so that curves compare; `evaluate` draws others,
# so that a checkpoint chosen by its score is not judged by the votes that chose it.
TRAINING_KEY, EVALUATION_KEY = 0, 1
BOUND_DRAWS, BOUND_BATCH = 10_000, 1_000


def score(run: Run, variables: ByPlayer, key: int) -> metrics.Score:
    """The FactorVAE score (`id_gan`) of the representation."""
    return metrics.factor_vae_score(
        lambda images: run.represent(variables, images), run.dataset, jax.random.key(key)
    )


def bounds(run: Run, state: TrainState, key: int) -> dict[str, Any]:
    """I_L, I_U and KL_i over BOUND_DRAWS draws, in nats, at the noise level of the state's step."""
    batches = BOUND_DRAWS // BOUND_BATCH
    hparams = run.model.schedule(run.hparams, state.step)
    compute = jax.jit(run.model.bounds, static_argnums=2)
    parts = [
        compute(state.variables, k, BOUND_BATCH, hparams)
        for k in jax.random.split(jax.random.key(key), batches)
    ]
    mean = jax.tree.map(lambda *x: np.mean(np.stack(x), axis=0), *map(jax.device_get, parts))
    return {name: value.tolist() for name, value in mean.items()}


def evaluate(
    run: Run, workdir: Workdir, step: int | None = None, log: Callable[[str], Any] = print
) -> dict[str, Any]:
    """Scores one checkpoint (the newest, or `step`) and writes scores.json.

    Raises:
      UserError: there is no such checkpoint.
    """
    state, step = restore(run, workdir, step, log)
    factor_vae = score(run, state.variables, EVALUATION_KEY).as_dict()
    information = bounds(run, state, EVALUATION_KEY)
    common = {"protocol": "mean of draws", "draws": BOUND_DRAWS, "checkpoint_step": step}
    kl = information["kl"]
    scores = {
        "factor_vae": {**factor_vae, "checkpoint_step": step},
        "active_dimensions": {
            "value": len(factor_vae["active"]),
            "protocol": "variance of the code over the data set of 0.05 or more",
            "checkpoint_step": step,
        },
        "lower_bound": {"value": information["lower"], "unit": "nats", **common},
        "upper_bound": {"value": information["upper"], "unit": "nats", **common},
        "kl": {"value": kl, "unit": "nats", **common},
        "training": history(workdir),
        "run": {"model": run.config.model, "seed": run.config.seed, "checkpoint_step": step},
    }
    workdir.write_json(workdir.scores, scores)
    return scores


def history(workdir: Workdir) -> dict[str, Any]:
    """Best, median and last score over the checkpoints that training scored itself."""
    found = reports.best_and_median(read_metrics(workdir.metrics), SCORE)
    if found is None:
        return {}
    best_step, best, median, last = found
    return {"best_step": best_step, "best": best, "median": median, "last": last}


def restore(
    run: Run, workdir: Workdir, step: int | None, log: Callable[[str], Any]
) -> tuple[TrainState, int]:
    """The newest state in a workdir, or the one of `step`.

    Raises:
      UserError: there is none.
    """
    checkpoints = Checkpoints(workdir.checkpoints)
    try:
        found = checkpoints.restore(run.state_template(), step, log)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{workdir.path} holds no checkpoint yet; train first")
    return found[0], found[1]


def progress_images(run: Run, state: TrainState, folder: Path) -> dict[str, np.ndarray]:
    """Sample and traversal pictures uint8 [H, W, C], also written as PNGs into `folder`."""
    hparams = run.model.schedule(run.hparams, state.step)
    kl = _kl_only(run.model, state.variables, hparams)
    pictures = {
        "samples": reports.tile(reports.samples(run.generate, state.variables, run.model), 8),
        "traversals": reports.traversal_image(
            reports.traversals(run.generate, state.variables, kl)[0]
        ),
    }
    for name, picture in pictures.items():
        reports.save_png(folder / f"{name}-{int(state.step):08d}.png", picture)
    return pictures


@partial(jax.jit, static_argnums=0)
def _kl_only(model: Model, variables: ByPlayer, hparams: Hparams) -> jax.Array:
    """KL_i [d]; under jit the images and bounds that are not asked for cost nothing."""
    return model.bounds(variables, jax.random.key(TRAINING_KEY), BOUND_BATCH, hparams)["kl"]


def finish(run: Run, workdir: Workdir, log: Callable[[str], Any] = print) -> None:
    """What training ends with: the newest checkpoint scored on fresh votes, and its report."""
    evaluate(run, workdir, None, log)
    report(run, workdir, log=log)


def report(
    run: Run, workdir: Workdir, step: int | None = None, log: Callable[[str], Any] = print
) -> None:
    """Draws figures/*.png and report.html of the checkpoint `step`.

    Without `step` it is the one that scores.json is about, or else the newest, scored first. (Not
    the best: a score can be best by luck long before the images are worth looking at.)

    Raises:
      UserError: there is no such checkpoint.
    """
    scores = _scores_of(run, workdir, step, log)
    state, step = restore(run, workdir, scores["run"]["checkpoint_step"], log)
    folder, records = workdir.figures, read_metrics(workdir.metrics)
    kl = np.asarray(scores["kl"]["value"])
    images, order = reports.traversals(run.generate, state.variables, kl)
    names = [f"r{i}" for i in order]
    votes = np.asarray(scores["factor_vae"]["votes"])
    reals = run.dataset.images(run.dataset.factors_of(_some(run.dataset.size, 64)))
    samples = reports.samples(run.generate, state.variables, run.model)
    reports.traversal_figure(
        folder / "traversals.png", images, kl[order], reports.TRAVERSAL.tolist(), names
    )
    reports.save_png(folder / "samples.png", reports.tile(samples, 8), 2)
    reports.save_png(folder / "real.png", reports.tile(np.asarray(reals), 8), 2)
    reports.convergence_figure(folder / "convergence.png", records, SCORE, len(kl))
    reports.curves_figure(folder / "curves.png", records, CURVES)
    reports.votes_figure(
        folder / "votes.png",
        votes,
        scores["factor_vae"]["factor_names"],
        [f"r{i}" for i in range(len(votes))],
    )
    _write_page(run, workdir, scores, step)
    log(f"report: {workdir.report}")


CURVES = [
    (
        "losses",
        [(f"loss/{p}", p) for p in ("discriminator", "generator", "reconstructor")],
    ),
    ("D's belief in an image", [("probability/real", "D(x)"), ("probability/generated", "D(G)")]),
    ("instance noise", [("noise", "sigma")]),
    ("steps a second", [("steps_per_second", "")]),
]


def _scores_of(run: Run, workdir: Workdir, step: int | None, log: Callable) -> dict[str, Any]:
    """scores.json if it is about a checkpoint (`step`) that is still kept, else made anew."""
    if workdir.scores.exists():
        scores = json.loads(workdir.scores.read_text())
        kept = (workdir.checkpoints / str(scores["run"]["checkpoint_step"])).is_dir()
        if kept and step in (None, scores["run"]["checkpoint_step"]):
            return scores
    return evaluate(run, workdir, step, log)


def _some(size: int, count: int) -> np.ndarray:
    return np.random.default_rng(0).choice(size, count, replace=False)


def _write_page(run: Run, workdir: Workdir, scores: dict[str, Any], step: int) -> None:
    recorded = workdir.must_exist()
    training = scores["training"]
    best = f"{training['best']:.3f} at {training['best_step']:,}" if training else "none"
    summary = [
        ("FactorVAE score, fresh votes", scores["factor_vae"]["value"]),
        ("best in training", best),
        ("median in training", training.get("median", "none")),
        ("last in training", training.get("last", "none")),
        ("checkpoint", f"{step:,} of {run.config.train.steps:,}"),
        ("I_L, nats", f"{scores['lower_bound']['value']:.2f}"),
        ("I_U, nats", f"{scores['upper_bound']['value']:.2f}"),
        ("active dimensions", scores["active_dimensions"]["value"]),
    ]
    folder, captions = workdir.figures, reports.CAPTIONS
    figures = [
        (folder / "traversals.png", "Latent traversals", captions["traversal"]),
        (folder / "convergence.png", "Convergence", captions["convergence"]),
        (folder / "samples.png", "Generated images", captions["samples"]),
        (folder / "real.png", "Real images", "Drawn at random from the data set."),
        (folder / "votes.png", "What each dimension was chosen for", captions["votes"]),
        (folder / "curves.png", "Training curves", captions["curves"]),
    ]
    notes = [
        f"All pictures show checkpoint {step}; its score was taken with votes that training never "
        "used. Best, median and last are over the checkpoints that training scored.",
    ]
    named = {name: entry for name, entry in scores.items() if "value" in entry}
    reports.write_report(
        workdir.report,
        f"{run.config.model} on {run.config.dataset.name}, seed {run.config.seed}",
        summary,
        figures,
        recorded["config"],
        named,
        notes,
        {**recorded["versions"], **recorded["device"], "commit": recorded["commit"]},
    )
