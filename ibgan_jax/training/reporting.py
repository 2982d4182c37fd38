"""The pictures and the page about a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ibgan_jax import data, distributed, reports
from ibgan_jax.errors import UserError
from ibgan_jax.training import evaluation, trained
from ibgan_jax.training.run import Run
from ibgan_jax.training.telemetry import read_metrics
from ibgan_jax.training.trained import Trained
from ibgan_jax.training.workdir import Workdir

# Picture -> metric, its matrix [d, F], what the columns are, and whose largest entry is marked.
MATRICES = {
    "votes": ("factor_vae", "votes", "dimension that varied least", "dimension"),
    "information": ("mig", "mutual_information", "dimension and what it tells, nats", "factor"),
}
HEADLINES = {
    "factor_vae": "FactorVAE score, fresh votes",
    "fid": "FID",
    "mig": "MIG",
    "sap": "SAP",
}
INFORMATION = {"lower_bound": "I_L", "upper_bound": "I_U", "elbo": "ELBO"}  # on the page's cards


def finish(run: Run, workdir: Workdir, log: Callable[[str], Any] = print) -> None:
    """Scores what training ends with on fresh votes, and draws its pages.

    They are about the best checkpoint and about the newest one, in this order: when the newest one
    has its page, all is done. A light run gets the quick scores of the newest one alone:
    --mode=evaluate and --mode=report make the others.
    """
    light = run.config.train.light
    names = evaluation.QUICK if light and data.has_factors(run.dataset.name) else None
    restored = trained.restore(run, workdir, None, log)
    if not light:
        _report_best(run, workdir, restored.step, log)
    evaluation.evaluate(run, workdir, None, log, names, restored=restored)
    if not light:
        report(run, workdir, restored.step, log, restored)


def _report_best(run: Run, workdir: Workdir, newest: int, log: Callable[[str], Any]) -> None:
    """Scores and draws the best checkpoint in a folder of its own, if it is not the newest one."""
    best = evaluation.history(run, workdir).get("best_step", newest)
    if best != newest and best in trained.steps(workdir):
        restored = trained.restore(run, workdir, best, log)
        evaluation.evaluate(run, workdir.best, best, log, restored=restored)
        report(run, workdir.best, best, log, restored)


def is_done(run: Run, workdir: Workdir, step: int) -> bool:
    """Whether there is nothing at `step` to score and report: no checkpoint, or it is done."""
    try:
        scores = workdir.read_scores()
    except UserError:  # damaged: to be made again
        scores = None
    scored = scores is not None and scores["run"]["checkpoint_step"] == step
    return step == 0 or (scored and (run.config.train.light or workdir.report.exists()))


def report(
    run: Run,
    workdir: Workdir,
    step: int | None = None,
    log: Callable[[str], Any] = print,
    restored: Trained | None = None,
) -> None:
    """Draws figures/*.png and report.html of the checkpoint `step`.

    Without `step` it is the one that scores.json is about, or else the newest, scored first. (Not
    the best: a score can be best by luck long before the images are worth looking at.) `restored`
    is what `trained.restore` gives of that step, for who has it already.

    Raises:
      UserError: there is no such checkpoint, or the pictures cannot be written.
    """
    with workdir.explained():
        scores = evaluation.current_scores(run, workdir, step, log)
        step = scores["run"]["checkpoint_step"]
        restored = restored or trained.restore(run, workdir, step, log)
        _report(run, workdir, scores, restored, log)


def _report(
    run: Run,
    workdir: Workdir,
    scores: dict[str, Any],
    restored: Trained,
    log: Callable[[str], Any],
) -> None:
    folder, records = workdir.figures, read_metrics(workdir.metrics)
    model, variables = run.model, restored.variables
    nats = np.asarray(scores[model.share]["value"])
    starts = evaluation.starts(run)
    images, order = reports.traversals(run.generate, run.represent, variables, nats, starts)
    names = [f"{model.symbol}{i}" for i in range(len(nats))]
    reals = np.asarray(run.dataset.examples(evaluation.some(run.dataset.size, evaluation.REALS)))
    samples = reports.samples(run.generate, variables, model)
    pairs = reports.reconstructions(
        run.generate, run.represent, variables, reals[: 3 * reports.ROW]
    )
    if not distributed.is_main_process():
        return  # what follows is drawn of arrays that are here
    reports.traversal_figure(
        folder / "traversals.png",
        starts,
        images,
        nats[order],
        reports.TRAVERSAL.tolist(),
        [names[i] for i in order],
        reports.SHARE_NAMES[model.share],
    )
    reports.save_png(folder / "samples.png", reports.tile(samples, 8), 2)
    reports.save_png(folder / "real.png", reports.tile(reals, 8), 2)
    reports.save_png(folder / "reconstructions.png", reports.tile(pairs, reports.ROW), 2)
    reports.convergence_figure(
        folder / "convergence.png",
        records,
        evaluation.goal(run),
        len(nats),
        model.share,
        model.symbol,
    )
    reports.curves_figure(folder / "curves.png", records, _curves(records))
    for name, (metric, matrix, xlabel, by) in MATRICES.items():
        picture = folder / f"{name}.png"
        picture.unlink(missing_ok=True)  # it may be of another checkpoint
        if metric in scores:
            shown = np.asarray(scores[metric][matrix])
            factors = scores[metric]["factor_names"]
            reports.matrix_figure(picture, shown, factors, names, xlabel, by)
    _write_page(run, workdir, scores, restored)
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
        ("total correlation as estimated, nats", [("total_correlation", "")]),
        ("instance noise", [("noise", "sigma")]),
        ("steps a second", [("steps_per_second", "")]),
    ]


def _write_page(run: Run, workdir: Workdir, scores: dict[str, Any], restored: Trained) -> None:
    recorded, step = workdir.must_exist(), restored.step
    training = scores["training"]
    best = f"{training['best']:.3f} at {training['best_step']:,}" if training else "none"
    summary = [
        *(
            (label, f"{scores[name]['value']:.3f}")
            for name, label in HEADLINES.items()
            if name in scores
        ),
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
    links, of_best = _beside(workdir, training.get("best_step"), step)
    summary[1:1] = of_best
    folder, captions = workdir.figures, reports.CAPTIONS
    figures = [
        (folder / "traversals.png", "Latent traversals", captions["traversal"]),
        (folder / "convergence.png", "Convergence", captions["convergence"]),
        (folder / "samples.png", "Generated images", captions["samples"]),
        (folder / "reconstructions.png", "Reconstructions", captions["reconstructions"]),
        (folder / "real.png", "Real images", "Drawn at random from the data set."),
        (folder / "votes.png", "What each dimension was chosen for", captions["votes"]),
        (folder / "information.png", "What each dimension tells", captions["information"]),
        (folder / "curves.png", "Training curves", captions["curves"]),
    ]
    notes = [
        f"All pictures show checkpoint {step}; its score was taken with votes that training never "
        "used. Best, median and last are over the checkpoints that training scored.",
        *run.dataset.notes,
    ]
    if restored.weights:
        these = "these weights" if "weights" in scores["run"] else "the weights before that"
        notes.append(f"Drawn from weights.npz, rounded to float16; the scores are of {these}.")
    figures = [figure for figure in figures if figure[0].exists()]
    named = {name: entry for name, entry in scores.items() if "value" in entry}
    reports.write_report(
        workdir.report,
        f"{run.config.model} on {run.config.dataset.name}, seed {run.config.seed}, step {step:,}",
        summary,
        figures,
        recorded["config"],
        named,
        notes,
        {**recorded["versions"], **recorded["device"], "commit": recorded["commit"]},
        links=links,
    )


def _beside(
    workdir: Workdir, best: int | None, step: int
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Links the pages of the best and the newest checkpoint, from the page of `step`.

    Returns:
      (text, relative path) of the other page, and the card (label, value) of the best checkpoint's
      score; both empty where there is no other page.
    """
    if workdir.report != workdir.path / workdir.report.name:  # this is the best one's
        return [("the newest checkpoint of this run", f"../{workdir.report.name}")], []
    other = workdir.best
    try:
        scores = other.read_scores()
    except UserError:  # damaged
        scores = None
    about = scores and scores["run"]["checkpoint_step"]
    if about in (None, step) or about != best or not other.report.exists():
        return [], []
    path = other.report.relative_to(workdir.path).as_posix()
    value = f"{scores['factor_vae']['value']:.3f}" if "factor_vae" in scores else "none"
    link = (f"the best checkpoint of this run, {best:,}", path)
    return [link], [("its best checkpoint, fresh votes", value)]
