"""Training end to end: the files it leaves, taking a run up again, other sources, divergence."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import launch
from ibgan_jax.training import evaluation, member, reporting
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.population import Population
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

LOGGED = {
    "loss/discriminator",
    "loss/generator",
    "loss/reconstructor",
    "probability/real",
    "probability/generated",
    "bounds/upper",
    "bounds/lower",
    *(f"kl/{i}" for i in range(4)),
    "noise",
    "steps_per_second",
}
SCORED = {"score/factor_vae", "score/active_dimensions"}
FIGURES = {"traversals", "samples", "real", "convergence", "curves", "votes"}

pytestmark = pytest.mark.usefixtures("small")


def test_config_json(finished):
    recorded = json.loads((finished / "config.json").read_text())
    expected = json.loads(json.dumps(tiny.config().to_dict()))
    assert recorded["config"] == expected
    assert {"ibgan_jax", "jax", "flax", "optax", "python"} <= recorded["versions"].keys()
    assert recorded["device"]["platform"] == "cpu"
    assert recorded["device"]["count"] == 4
    assert "commit" in recorded


def test_metrics(finished):
    records = [json.loads(line) for line in (finished / "metrics.jsonl").open()]
    assert [record["step"] for record in records] == [4, 8, 12, 16, 20, 24]
    for record in records:
        scored = SCORED if record["step"] % 12 == 0 else set()
        assert record.keys() == {"step"} | LOGGED | scored
        assert all(np.isfinite(value) for value in record.values())
        assert record["steps_per_second"] > 0
        upper = sum(record[f"kl/{i}"] for i in range(4))
        assert record["bounds/upper"] == pytest.approx(upper, rel=1e-4)


def test_the_noise_falls_as_scheduled(finished):
    # The mean over the four steps of a window, the first of which is iteration 1.
    noise = [record["noise"] for record in tiny.metrics(finished)]
    hparams = tiny.config().hparams
    fall = (hparams.noise_start - hparams.noise_end) / hparams.noise_steps
    expected = hparams.noise_start - fall * (np.arange(0, 24, 4) + 2.5)
    np.testing.assert_allclose(noise, expected, rtol=1e-5)


def test_checkpoints(finished):
    kept = {int(path.name) for path in (finished / "checkpoints").iterdir()}
    best = tiny.scores(finished)["training"]["best_step"]
    assert kept == {18, 24} | {best}


def test_scores(finished):
    scores = tiny.scores(finished)
    records = {record["step"]: record for record in tiny.metrics(finished)}
    training, score = scores["training"], scores["factor_vae"]
    points = [records[12]["score/factor_vae"], records[24]["score/factor_vae"]]
    assert training["best"] == max(points) == records[training["best_step"]]["score/factor_vae"]
    assert training["median"] == pytest.approx(np.median(points))
    assert training["last"] == points[1]
    assert scores["run"] == {"model": "ibgan", "seed": 0, "checkpoint_step": 24}
    assert (score["metric"], score["protocol"]) == ("factor_vae", "id_gan")
    assert score["settings"]["votes"] == np.sum(score["votes"]) == 40
    assert np.shape(score["votes"]) == (4, 5)
    assert 0 <= score["interval"][0] <= score["interval"][1] <= 1
    assert score["checkpoint_step"] == 24
    assert scores["active_dimensions"]["value"] == len(score["active"])
    assert len(scores["kl"]["value"]) == 4
    assert scores["upper_bound"]["value"] == pytest.approx(sum(scores["kl"]["value"]), rel=1e-4)
    assert all(scores[name]["unit"] == "nats" for name in ("lower_bound", "upper_bound", "kl"))


def test_figures_report_and_events(finished):
    check_figures(finished)
    progress = {path.name for path in (finished / "figures/progress").iterdir()}
    steps = ("00000012", "00000024")
    assert progress == {
        f"{kind}-{step}.png" for kind in ("samples", "traversals") for step in steps
    }
    assert list(finished.glob("events.out.tfevents.*"))


def check_figures(path):
    for name in FIGURES:
        with Image.open(path / f"figures/{name}.png") as image:
            image.verify()
        with Image.open(path / f"figures/{name}.png") as image:
            assert len(np.unique(np.asarray(image))) > 1
    page = (path / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert "ibgan on dsprites, seed 0" in page
    assert f"{tiny.scores(path)['training']['best']:.3f}" in page


def test_two_halves_equal_the_whole(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "report", lambda *args, **kwargs: None)
    tiny.train(tmp_path, train_steps=12)
    assert [record["step"] for record in tiny.metrics(tmp_path)] == [4, 8, 12]
    assert tiny.scores(tmp_path)["run"]["checkpoint_step"] == 12
    assert tiny.train(tmp_path)[0] == f"resuming {tmp_path} at step 12"
    assert tiny.differing(tiny.state(finished), tiny.state(tmp_path)) == []
    assert tiny.metrics(tmp_path) == tiny.metrics(finished)
    assert tiny.scores(tmp_path) == tiny.scores(finished)


def test_a_finished_run_is_only_reported_again(copy):
    shutil.rmtree(copy / "figures")
    before = tiny.metrics(copy)
    assert tiny.train(copy) == [
        f"resuming {copy} at step 24",
        f"{copy} has 24 of 24 steps: nothing to train",
        *([f"report: {copy}/best/report.html"] if best_page(copy) else []),
        f"report: {copy}/report.html",
    ]
    assert tiny.metrics(copy) == before
    check_figures(copy)


def best_page(path):
    return tiny.scores(path)["training"]["best_step"] != 24


def test_the_best_checkpoint_has_a_page_beside_the_newest(copy, monkeypatch):
    monkeypatch.setattr(evaluation, "history", lambda *args: best_at(18))
    lines = tiny.train(copy)
    assert lines[-2:] == [f"report: {copy}/best/report.html", f"report: {copy}/report.html"]
    best = json.loads((copy / "best/scores.json").read_text())
    assert best["run"]["checkpoint_step"] == 18
    assert tiny.scores(copy)["run"]["checkpoint_step"] == 24
    check_figures(copy / "best")
    page, other = ((copy / f / "report.html").read_text() for f in ("", "best"))
    assert 'href="best/report.html"' in page and 'href="../report.html"' in other
    assert f"{best['factor_vae']['value']:.3f}" in page
    assert "seed 0, step 24" in page and "seed 0, step 18" in other


def test_the_page_of_a_best_checkpoint_that_is_another_now_is_not_linked(copy, monkeypatch):
    monkeypatch.setattr(evaluation, "history", lambda *args: best_at(18))
    tiny.train(copy)
    monkeypatch.setattr(evaluation, "history", lambda *args: best_at(24))
    assert tiny.train(copy)[-1] == f"report: {copy}/report.html"
    assert "best/report.html" not in (copy / "report.html").read_text()


def best_at(step):
    return {"best_step": step, "best": 0.5, "median": 0.4, "last": 0.3}


def test_what_ends_a_run_reads_its_checkpoint_once(copy, monkeypatch):
    before, reads = tiny.scores(copy), []
    restore = Checkpoints.restore
    monkeypatch.setattr(
        Checkpoints, "restore", lambda self, *given: reads.append(given[1]) or restore(self, *given)
    )
    lines = []
    reporting.finish(build(tiny.config(), lines.append), Workdir(copy), lines.append)
    assert reads == [None, *([12] if best_page(copy) else [])]
    assert lines[-1] == f"report: {copy}/report.html"
    assert tiny.scores(copy) == before


def test_streamed_images_train_alike(finished, tmp_path, monkeypatch):
    pytest.importorskip("grain")
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr(reporting, "finish", lambda *args: None)
    tiny.train(tmp_path / "run", dataset_source="stream", dataset_dir=str(tmp_path / "data"))
    # The images are the same bits, but come into the program another way, which XLA may use to
    # fuse and round differently (on a CPU it did not).
    streamed, resident = tiny.state(tmp_path / "run"), tiny.state(finished)
    assert streamed.keys() == resident.keys()
    for name, (dtype, _, content) in resident.items():
        if dtype == "float32":
            one, other = (np.frombuffer(x, np.float32) for x in (streamed[name][2], content))
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=name)
        else:
            assert streamed[name][2] == content


def breaking(step, turn=0):
    """An `advance` whose update after `step` breaks the generator: the next losses show it."""
    advance = Population.advance

    def wrapped(self, batches):
        kept = self._hparams[turn]
        if int(self._states[turn].step[0]) == step:
            rate = kept["lr_generator"]
            self._hparams[turn] = kept | {
                "lr_generator": jax.device_put(rate * 1e36, rate.sharding)
            }
        advance(self, batches)
        self._hparams[turn] = kept

    return wrapped


def test_divergence_is_said_and_leaves_the_last_good_checkpoint(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(reporting, "finish", lambda *args: None)

    with monkeypatch.context() as patch:
        patch.setattr(Population, "advance", breaking(18))
        with pytest.raises(
            member.DivergedError, match=r"is (nan|-?inf) at step 20; .*learning rate"
        ):
            tiny.train(tmp_path)
    assert [record["step"] for record in tiny.metrics(tmp_path)] == [4, 8, 12, 16]
    assert tiny.train(tmp_path)[0] == f"resuming {tmp_path} at step 18"
    assert tiny.differing(tiny.state(finished), tiny.state(tmp_path)) == []
    assert tiny.metrics(tmp_path) == tiny.metrics(finished)


def test_evaluate_one_checkpoint(copy, capsys):
    other = next(
        step
        for step in (12, 18, 24)
        if step != tiny.scores(copy)["run"]["checkpoint_step"]
        and (copy / f"checkpoints/{step}").is_dir()
    )
    before = tiny.scores(copy)
    assert (
        launch.main(["launch.py", "--mode=evaluate", f"--workdir={copy}", f"--step={other}"]) == 0
    )
    after = tiny.scores(copy)
    assert after["run"]["checkpoint_step"] == other
    assert after["factor_vae"]["variances"] != before["factor_vae"]["variances"]
    assert after["training"] == before["training"]
    assert capsys.readouterr().err == ""


def test_report_draws_deleted_figures_again(copy):
    shutil.rmtree(copy / "figures")
    (copy / "report.html").unlink()
    before = tiny.scores(copy)
    assert launch.main(["launch.py", "--mode=report", f"--workdir={copy}"]) == 0
    check_figures(copy)
    assert tiny.scores(copy) == before
