"""A study: which runs belong to it, that it goes on where it was, and its table."""

import functools
import json
import shutil

import pytest
import tiny
from ml_collections import ConfigDict

import launch
from configs import table1
from ibgan_jax import metrics
from ibgan_jax.errors import UserError
from ibgan_jax.metrics import factor_classifier
from ibgan_jax.training import loop, study
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

CONFIGS = tiny.ROOT / "configs"


def config(**changed):
    made = table1.get_config()
    made.study.experiments = ("quickstart",)
    made.study.models, made.study.seeds = ("ibgan",), (0, 1)
    made.update_from_flattened_dict({k.replace("_", ".", 1): v for k, v in changed.items()})
    return made


def test_table1_is_seven_systems_on_two_data_sets_with_ten_seeds():
    members = [member for _, member in study.members(table1.get_config(), CONFIGS)]
    assert len(members) == 7 * 2 * 10
    assert {m.dataset.name for m in members} == {"dsprites", "color_dsprites"}
    steps = {(m.name, m.model): m.train.steps for m in members}
    assert steps["dsprites", "ibgan"] == 150_000
    assert steps["color_dsprites", "ibgan"] == 500_000
    assert steps["dsprites", "factor_vae"] == 300_000
    published = table1.get_config().published.to_dict()
    assert {(d, m) for d in published for m in published[d]} == set(steps)


def test_numbers_of_the_study_replace_the_recipes():
    few = config(train_steps=300, train_evaluate_every=100, dataset_dir="elsewhere")
    for _, member in study.members(few, CONFIGS):
        assert (member.train.steps, member.train.evaluate_every) == (300, 100)
        assert member.train.log_every == 100
        assert member.dataset.dir == "elsewhere"


def test_a_study_of_the_grid_trains_every_published_weight():
    made = config()
    made.study.grid, made.study.models, made.study.seeds = True, ("vae", "beta_vae"), (3,)
    found = {folder: member.hparams.beta for folder, member in study.members(made, CONFIGS)}
    assert found.pop("quickstart-vae-seed3") == 1.0
    assert found == {f"quickstart-beta_vae-beta{beta}-seed3": beta for beta in (1, 2, 4, 6, 8, 16)}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("experiments", ("nothing",), "there is no .*nothing.py"),
        ("models", ("nothing",), "unknown model 'nothing'"),
        ("seeds", (-1,), "seed=-1"),
    ],
)
def test_what_cannot_be_is_named_before_anything_starts(tmp_path, key, value, said):
    made = config()
    made.study[key] = value
    with pytest.raises(UserError, match=said):
        study.train(made, CONFIGS, Workdir(tmp_path / "study"))
    assert not (tmp_path / "study").exists()


def test_training_skips_what_is_finished_and_takes_up_the_rest(
    tmp_path, finished, small, monkeypatch
):
    home, trained, lines = Workdir(tmp_path / "study"), [], []
    # The first run is there already, the second is what `loop.train` is asked for.
    first = home.path / "quickstart-ibgan-seed0"
    shutil.copytree(finished, first)
    two = [(f"quickstart-ibgan-seed{seed}", tiny.config(seed=seed)) for seed in (0, 1)]
    monkeypatch.setattr(study, "members", lambda *_: two)

    def train(member, folder, log):
        trained.append((member.seed, folder.path.name))
        shutil.copytree(finished, folder.path)
        record = json.loads(folder.config.read_text())
        record["config"]["seed"] = member.seed
        folder.write_json(folder.config, record)

    monkeypatch.setattr(loop, "train", train)
    study.train(config(), CONFIGS, home, lines.append)
    assert trained == [(1, "quickstart-ibgan-seed1")]
    assert "finished before" in lines
    (row,) = json.loads((home.path / "table.json").read_text())
    assert (row["system"], row["seeds"]) == ("ibgan", [0, 1])
    assert row["published"] == 0.8
    # The report of the folder is the same table.
    (home.path / "table.md").unlink()
    assert launch.main(["launch.py", "--mode=report", f"--workdir={home.path}"]) == 0
    assert "0.80" in (home.path / "table.md").read_text()


def test_a_run_that_diverges_does_not_stop_the_study(tmp_path, finished, small, monkeypatch):
    lines = []
    two = [(f"run-{seed}", tiny.config(seed=seed)) for seed in (1, 2)]
    monkeypatch.setattr(study, "members", lambda *_: two)

    def train(member, folder, log):
        if member.seed == 1:
            raise loop.DivergedError("loss is nan at step 3")
        shutil.copytree(finished, folder.path)

    monkeypatch.setattr(loop, "train", train)
    study.train(config(), CONFIGS, Workdir(tmp_path), lines.append)
    assert any("the study goes on without it" in line for line in lines)
    assert (tmp_path / "table.csv").exists()


def test_evaluating_several_runs_makes_one_table(tmp_path, finished, small, capsys):
    for seed in (0, 1):
        folder = Workdir(tmp_path / f"runs/seed{seed}")
        shutil.copytree(finished, folder.path)
        folder.write_json(folder.config, {"config": tiny.config(seed=seed).to_dict()})
    folders = [str(tmp_path / f"runs/seed{seed}") for seed in (0, 1)]
    assert launch.main(["launch.py", "--mode=evaluate", *folders]) == 0
    assert "| quickstart | dsprites | ibgan | 2 |" in capsys.readouterr().out
    assert (tmp_path / "runs/table.md").exists()
    scores = json.loads((tmp_path / "runs/seed1/scores.json").read_text())
    assert scores["mig"]["protocol"] == "disentanglement_lib"


def test_mistakes_are_one_line(tmp_path, finished, capsys):
    def said(*arguments):
        assert launch.main(["launch.py", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    (tmp_path / "empty").mkdir()
    assert "holds no run" in said("--mode=evaluate", finished, tmp_path / "empty")
    assert "unknown metric 'sip'; choose from: factor_vae" in said(
        "--mode=evaluate", "--metrics=factor_vae,sip", finished
    )
    assert "unknown protocol 'x' of mig" in said(
        "--mode=evaluate", "--metrics=factor_vae,mig:x", finished
    )
    assert "must include factor_vae" in said("--mode=evaluate", "--metrics=mig", finished)
    fid = "--metrics=factor_vae,fid"
    assert "fid needs --classifier=DIR" in said("--mode=evaluate", fid, finished)
    nowhere = f"--classifier={tmp_path / 'empty'}"
    assert "holds no classifier" in said("--mode=evaluate", fid, nowhere, finished)
    bare = Workdir(tmp_path / "bare")
    bare.create()
    bare.write_json(bare.config, {"config": ConfigDict(tiny.config()).to_dict()})
    assert "holds no checkpoint" in said("--mode=evaluate", finished, bare.path)
    assert "unexpected argument" in said("--mode=report", f"--workdir={finished}", "more")


def test_fid_and_gilbo_are_scored_beside_the_codes(tmp_path, finished, small, monkeypatch):
    run = build(tiny.config(), log=lambda line: None)
    settings = factor_classifier.Settings(steps=2, batch_size=4)
    quiet = lambda line: None  # noqa: E731
    params, record = factor_classifier.train(run.dataset, settings, quiet)
    factor_classifier.save(tmp_path / "net", params, record)
    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.setattr(metrics, "fid", functools.partial(metrics.fid, count=40))
    monkeypatch.setattr(metrics, "gilbo", functools.partial(metrics.gilbo, steps=2, draws=50))
    arguments = ["--metrics=factor_vae,fid,gilbo", f"--classifier={tmp_path / 'net'}"]
    assert launch.main(["launch.py", "--mode=evaluate", str(tmp_path / "run"), *arguments]) == 0
    scores = tiny.scores(tmp_path / "run")
    assert (scores["fid"]["protocol"], scores["fid"]["settings"]["images"]) == ("factor_net", 40)
    assert scores["fid"]["value"] > 0
    assert scores["gilbo"]["protocol"] == "conv_encoder"
    assert len(scores["gilbo"]["per_dimension"]) == 10
    # Another data set's network would give numbers that mean nothing.
    other = {**record, "dataset": "noisy_dsprites"}
    factor_classifier.save(tmp_path / "other", params, other)
    with pytest.raises(UserError, match="trained on noisy_dsprites, a run on dsprites"):
        study.evaluate(
            [Workdir(tmp_path / "run")], None, ("factor_vae", "fid"), quiet, tmp_path / "other"
        )
