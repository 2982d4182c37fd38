"""A study: which runs belong to it, that it goes on where it was, and its table."""

import functools
import json
import shutil

import pytest
import tiny
from ml_collections import ConfigDict

import launch
from configs import table1
from ibgan_jax import config as configs
from ibgan_jax import metrics
from ibgan_jax.errors import UserError
from ibgan_jax.metrics import factor_classifier
from ibgan_jax.training import comparison, loop, study
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

CONFIGS = tiny.ROOT / "configs"


def config(**changed):
    made = table1.get_config()
    made.study.experiments = ("quickstart",)
    made.study.models, made.study.seeds = ("ibgan",), (0, 1)
    made.update_from_flattened_dict({k.replace("_", ".", 1): v for k, v in changed.items()})
    return made


def members(config):
    """(folder, config) of every run of a study."""
    named = study.populations(config, CONFIGS)
    return [member for population in named for member in configs.members(population)]


def test_table1_is_seven_systems_on_two_data_sets_with_ten_seeds():
    made = [member for _, member in members(table1.get_config())]
    assert len(made) == 7 * 2 * 10
    assert {m.dataset.name for m in made} == {"dsprites", "color_dsprites"}
    steps = {(m.name, m.model): m.train.steps for m in made}
    assert steps["dsprites", "ibgan"] == 150_000
    assert steps["color_dsprites", "ibgan"] == 500_000
    assert steps["dsprites", "factor_vae"] == 300_000
    published = table1.get_config().published.to_dict()
    assert {(d, m) for d in published for m in published[d]} == set(steps)


def test_numbers_of_the_study_replace_the_recipes():
    few = config(train_steps=300, train_evaluate_every=100, dataset_dir="elsewhere")
    for _, member in members(few):
        assert (member.train.steps, member.train.evaluate_every) == (300, 100)
        assert member.train.log_every == 100
        assert member.dataset.dir == "elsewhere"


def test_a_study_of_the_grid_trains_every_published_weight():
    made = config()
    made.study.grid, made.study.models, made.study.seeds = True, ("vae", "beta_vae"), (3,)
    found = {folder: member.hparams.beta for folder, member in members(made)}
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


@pytest.fixture
def two(monkeypatch):
    """The study's population is the small run with seeds 0 and 1."""
    population = tiny.config()
    population.population.seeds = (0, 1)
    monkeypatch.setattr(study, "populations", lambda *_: [population])


def put(finished, member, workdir):
    """A finished run of `member`, as if it had been trained."""
    shutil.copytree(finished, workdir.path)
    record = json.loads(workdir.config.read_text())
    record["config"]["seed"] = member.seed
    workdir.write_json(workdir.config, record)


def test_training_skips_what_is_finished_and_takes_up_the_rest(
    tmp_path, finished, small, monkeypatch, two
):
    home, trained, lines = Workdir(tmp_path / "study"), [], []
    # The first run is there already, the second is what is asked to be trained.
    shutil.copytree(finished, home.path / "quickstart-ibgan-seed0")

    def train(runs, *_):
        for member, workdir in runs:
            trained.append((member.seed, workdir.path.name))
            put(finished, member, workdir)

    monkeypatch.setattr(loop, "train_together", train)
    study.train(config(), CONFIGS, home, lines.append)
    assert trained == [(1, "quickstart-ibgan-seed1")]
    assert any("1 of 2 runs to train" in line for line in lines)
    (row,) = json.loads((home.path / "table.json").read_text())
    assert (row["system"], row["seeds"]) == ("ibgan", [0, 1])
    assert row["published"] == 0.8
    # The report of the folder is the same table, and a page.
    (home.path / "table.md").unlink()
    home.report.unlink()
    assert launch.main(["launch.py", "--mode=report", f"--workdir={home.path}"]) == 0
    assert "0.80" in (home.path / "table.md").read_text()
    page = home.report.read_text()
    assert 'href="quickstart-ibgan-seed1/report.html"' in page
    assert "quickstart, dsprites, ibgan: over training" in page


def test_what_diverged_is_reported_and_not_tried_again(tmp_path, finished, small, monkeypatch, two):
    home, lines = Workdir(tmp_path), []

    def train(runs, *_):
        (good, there), (_, lost) = runs
        put(finished, good, there)
        lost.create()
        lost.write_json(lost.config, {"config": {}})
        lost.write_json(lost.diverged, {"step": 3, "reason": "loss is nan at step 3"})

    monkeypatch.setattr(loop, "train_together", train)
    study.train(config(), CONFIGS, home, lines.append)
    page = home.report.read_text()
    assert "quickstart-ibgan-seed1 diverged: loss is nan at step 3." in page
    monkeypatch.setattr(loop, "train_together", None)
    study.train(config(), CONFIGS, home, lines.append)
    assert any("diverged before; remove diverged.json to try it again" in x for x in lines)


def test_evaluating_several_runs_makes_one_table(tmp_path, finished, small, capsys):
    for seed in (0, 1):
        folder = Workdir(tmp_path / f"runs/seed{seed}")
        shutil.copytree(finished, folder.path)
        folder.write_json(folder.config, {"config": tiny.config(seed=seed).to_dict()})
    folders = [str(tmp_path / f"runs/seed{seed}") for seed in (0, 1)]
    assert launch.main(["launch.py", "--mode=evaluate", *folders]) == 0
    said = capsys.readouterr().out
    assert "| quickstart | dsprites | ibgan | 2 |" in said
    # Both hold the same network, so neither ranking can tell them apart.
    assert "udr chooses seed0" in said and "rank correlation of udr with factor_vae -" in said
    ranked = json.loads((tmp_path / "runs/selection.json").read_text())
    assert ranked["members"] == ["seed0", "seed1"]
    assert len(set(ranked["udr"]["values"])) == 1
    assert len(set(ranked["model_centrality"]["values"])) == 1
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
    alone = "--metrics=factor_vae,udr"
    assert "udr compares runs with each other" in said("--mode=evaluate", alone, finished)
    assert "must include factor_vae" in said("--mode=evaluate", "--metrics=mig", finished)
    fid = "--metrics=factor_vae,fid"
    assert "fid needs --classifier=PATH" in said("--mode=evaluate", fid, finished)
    nowhere = f"--classifier={tmp_path / 'empty'}"
    assert "holds no classifier" in said("--mode=evaluate", fid, nowhere, finished)
    bare = Workdir(tmp_path / "bare")
    bare.create()
    bare.write_json(bare.config, {"config": ConfigDict(tiny.config()).to_dict()})
    assert "holds no checkpoint" in said("--mode=evaluate", finished, bare.path)
    assert "unexpected argument" in said("--mode=report", f"--workdir={finished}", "more")


def test_fid_and_gilbo_are_scored_beside_the_codes(tmp_path, finished, small, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where data/statistics is kept
    run = build(tiny.config(), log=lambda line: None)
    settings = factor_classifier.Settings(steps=2, batch_size=4)
    quiet = lambda line: None  # noqa: E731
    params, record = factor_classifier.train(run.dataset, settings, quiet)
    factor_classifier.save(tmp_path / "net", params, record)
    shutil.copytree(finished, tmp_path / "run")
    whole = metrics.fid
    monkeypatch.setattr(metrics, "fid", lambda *a, **k: whole(*a, **{**k, "count": 40}))
    monkeypatch.setattr(metrics, "gilbo", functools.partial(metrics.gilbo, steps=2, draws=50))
    arguments = ["--metrics=factor_vae,fid,gilbo", f"--classifier={tmp_path / 'net'}"]
    assert launch.main(["launch.py", "--mode=evaluate", str(tmp_path / "run"), *arguments]) == 0
    scores = tiny.scores(tmp_path / "run")
    assert (scores["fid"]["protocol"], scores["fid"]["settings"]["images"]) == ("factor_net", 40)
    assert scores["fid"]["value"] > 0
    assert scores["gilbo"]["protocol"] == "conv_encoder"
    assert len(scores["gilbo"]["per_dimension"]) == 4
    # Another data set's network would give numbers that mean nothing.
    other = {**record, "dataset": "noisy_dsprites"}
    factor_classifier.save(tmp_path / "other", params, other)
    with pytest.raises(UserError, match="trained on noisy_dsprites, a run on dsprites"):
        comparison.evaluate(
            [Workdir(tmp_path / "run")], None, ("factor_vae", "fid"), quiet, tmp_path / "other"
        )
