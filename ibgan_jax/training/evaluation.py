"""Scores and pictures of a run, while it trains and afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
INFORMATION = {"lower_bound": "I_L", "upper_bound": "I_U", "elbo": "ELBO"}  # on the page's cards
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
    """The model's information figures over BOUND_DRAWS real images or draws, in nats.

    At the noise level of the state's step, where there is one.
    """
    hparams = run.model.schedule(run.hparams, state.step)
    compute = jax.jit(run.model.bounds)
    indices = _some(run.dataset.size, BOUND_DRAWS).reshape(-1, BOUND_BATCH)
    keys = jax.random.split(jax.random.key(key), len(indices))
    parts = [
        compute(state.variables, k, _examples(run, batch), hparams)
        for k, batch in zip(keys, indices, strict=True)
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
    scores = {
        "factor_vae": {**factor_vae, "checkpoint_step": step},
        "active_dimensions": {
            "value": len(factor_vae["active"]),
            "protocol": "variance of the code over the data set of 0.05 or more",
            "checkpoint_step": step,
        },
        **{name: {"value": x, "unit": "nats", **common} for name, x in information.items()},
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
    shares = _shares(run, state)
    pictures = {
        "samples": reports.tile(reports.samples(run.generate, state.variables, run.model), 8),
        "traversals": reports.traversal_image(
            reports.traversals(run.generate, state.variables, shares)[0]
        ),
    }
    for name, picture in pictures.items():
        reports.save_png(folder / f"{name}-{int(state.step):08d}.png", picture)
    return pictures


def _shares(run: Run, state: TrainState) -> np.ndarray:
    """The nats [d] that each dimension carries, from one batch."""
    hparams = run.model.schedule(run.hparams, state.step)
    images = _examples(run, _some(run.dataset.size, BOUND_BATCH))
    key = jax.random.key(TRAINING_KEY)
    return np.asarray(_share_only(run.model, state.variables, key, images, hparams))


@partial(jax.jit, static_argnums=0)
def _share_only(
    model: Model, variables: ByPlayer, key: jax.Array, images: jax.Array, hparams: Hparams
) -> jax.Array:
    """Under jit the images and bounds that are not asked for cost nothing."""
    return model.bounds(variables, key, images, hparams)[model.share]


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
    model, variables = run.model, state.variables
    nats = np.asarray(scores[model.share]["value"])
    images, order = reports.traversals(run.generate, variables, nats)
    names = [f"{model.symbol}{i}" for i in range(len(nats))]
    reals = np.asarray(_examples(run, _some(run.dataset.size, 64)))
    reports.traversal_figure(
        folder / "traversals.png",
        images,
        nats[order],
        reports.TRAVERSAL.tolist(),
        [names[i] for i in order],
        reports.SHARE_NAMES[model.share],
    )
    samples = reports.samples(run.generate, variables, model)
    pairs = reports.reconstructions(
        run.generate, run.represent, variables, reals[: 3 * reports.ROW]
    )
    reports.save_png(folder / "samples.png", reports.tile(samples, 8), 2)
    reports.save_png(folder / "real.png", reports.tile(reals, 8), 2)
    reports.save_png(folder / "reconstructions.png", reports.tile(pairs, reports.ROW), 2)
    reports.convergence_figure(
        folder / "convergence.png", records, SCORE, len(nats), model.share, model.symbol
    )
    reports.curves_figure(folder / "curves.png", records, _curves(records))
    votes = np.asarray(scores["factor_vae"]["votes"])
    reports.votes_figure(folder / "votes.png", votes, scores["factor_vae"]["factor_names"], names)
    _write_page(run, workdir, scores, step)
    log(f"report: {workdir.report}")


def _curves(records: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The panels of curves.png: whatever this model records."""
    tags = {tag for record in records for tag in record}
    losses = [tag for tag in sorted(tags) if tag.startswith("loss/")]
    belief = [("probability/real", "D(x)"), ("probability/generated", "D(G)")]
    return [
        *((tag.replace("loss/", "loss of the "), [(tag, "")]) for tag in losses),
        ("D's belief in an image", belief),
        ("ELBO, nats", [("elbo", "")]),
        ("total correlation, nats", [("total_correlation", "")]),
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
    """The same `count` of `size` examples every time, none twice if there are enough."""
    return np.random.default_rng(0).choice(size, count, replace=count > size)


def _examples(run: Run, indices: np.ndarray) -> jax.Array:
    return run.dataset.images(run.dataset.factors_of(indices))


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
        *(
            (f"{label}, nats", f"{scores[name]['value']:.2f}")
            for name, label in INFORMATION.items()
            if name in scores
        ),
        ("active dimensions", scores["active_dimensions"]["value"]),
    ]
    folder, captions = workdir.figures, reports.CAPTIONS
    figures = [
        (folder / "traversals.png", "Latent traversals", captions["traversal"]),
        (folder / "convergence.png", "Convergence", captions["convergence"]),
        (folder / "samples.png", "Generated images", captions["samples"]),
        (folder / "reconstructions.png", "Reconstructions", captions["reconstructions"]),
        (folder / "real.png", "Real images", "Drawn at random from the data set."),
        (folder / "votes.png", "What each dimension was chosen for", captions["votes"]),
        (folder / "curves.png", "Training curves", captions["curves"]),
    ]
    notes = [
        f"All pictures show checkpoint {step}; its score was taken with votes that training never "
        "used. Best, median and last are over the checkpoints that training scored.",
        *run.dataset.notes,
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
