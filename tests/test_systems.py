"""Systems that are not IB-GAN, from training to report, on images in colour."""

import dataclasses
import importlib

import pytest
import tiny

from ibgan_jax import metrics
from ibgan_jax.training import loop, reporting
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

SMALL = {
    "infogan": {"generator_width": 2, "discriminator_width": 2},
    "factor_vae": {"discriminator_hidden": (8, 8)},
}


def config(model, steps):
    made = importlib.import_module("configs.color_dsprites").get_config(model)
    made.network.update(SMALL[model])
    made.train.update({"steps": steps, "batch_size": 4, "steps_per_dispatch": 2})
    made.train.update(dict.fromkeys(("log_every", "evaluate_every", "checkpoint_every"), 2))
    return made


@pytest.fixture
def few_images(small, monkeypatch):
    """The small run with a MIG of 500 images, for with 512 colours all of its 10,000 differ."""
    (default, protocol), *_ = metrics.PROTOCOLS["mig"].items()
    monkeypatch.setitem(
        metrics.PROTOCOLS["mig"], default, dataclasses.replace(protocol, images=500)
    )


@pytest.mark.parametrize("model", [pytest.param("infogan", marks=pytest.mark.slow), "factor_vae"])
def test_train_stop_resume_score_and_report(tmp_path, few_images, monkeypatch, model):
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(reporting, "finish", lambda *args: None)  # only its states are compared
        loop.train(config(model, 4), Workdir(tmp_path / "whole"), lines.append)
        loop.train(config(model, 2), Workdir(tmp_path / "halves"), lines.append)
    loop.train(config(model, 4), Workdir(tmp_path / "halves"), lines.append)
    whole, halves = (states(tmp_path / name, config(model, 4)) for name in ("whole", "halves"))
    assert tiny.differing(whole, halves) == []

    scores = tiny.scores(tmp_path / "halves")
    # The colour is one factor more, and every dimension has its share.
    assert scores["factor_vae"]["factor_names"][-1] == "color"
    share = {"infogan": "information", "factor_vae": "kl"}[model]
    assert len(scores[share]["value"]) == 10
    record = tiny.metrics(tmp_path / "halves")[-1]
    assert {f"{share}/{i}" for i in range(10)} <= set(record)
    page = (tmp_path / "halves/report.html").read_text()
    assert f"{model} on color_dsprites" in page and "Reconstructions" in page
    assert "8 levels" in page  # the report says which Color-dSprites this is
    pictures = {path.stem for path in (tmp_path / "halves/figures").glob("*.png")}
    assert {"traversals", "reconstructions", "votes", "information", "curves"} <= pictures


def states(path, made):
    """Every array of the last checkpoint."""
    template = build(made, log=lambda line: None).state_template()
    state, step, _ = Checkpoints(path / "checkpoints").restore(template, 4)
    assert step == 4
    return tiny.raw(state)
