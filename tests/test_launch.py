"""The command line: every mistake is one line and exit status 2, before any work starts."""

import os
import resource
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import launch
from ibgan_jax import models
from ibgan_jax.data import sprites
from ibgan_jax.training.workdir import Workdir

CONFIG = f"--config={tiny.CONFIG}"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Default folders are relative to the one that the program starts in; no images are drawn."""

    def never():
        raise AssertionError("work was started")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sprites, "render_packed_all", never)


@pytest.fixture
def mistake(capsys):
    """Runs launch.py with some arguments and returns the one line that it must answer with."""

    def call(*arguments):
        status = launch.main(["launch.py", *map(str, arguments)])
        out, err = capsys.readouterr()
        check_one_line(status, out, err)
        return err

    return call


def check_one_line(status, out, err):
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.endswith("\n") and err.count("\n") == 1


def write_run(path, **changed):
    """A workdir as it is before the first checkpoint."""
    workdir = Workdir(path)
    workdir.create()
    workdir.write_json(workdir.config, {"config": tiny.config(**changed).to_dict()})
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["--config=configs/NAME.py"]),
        (["--config=configs/nothing.py"], ["no such config file", "configs/nothing.py"]),
        (["--config"], ["--config"]),
        (
            [CONFIG, "--config.nothing=1"],
            ["'nothing'", "dataset, fid, grid, hparams, model, name"],
        ),
        (
            [CONFIG, "--config.train.step=5"],
            [
                "'train.step'",
                "batch_size, checkpoint_every, convolution, evaluate_every, light, log_every",
                "precision, steps, steps_per_dispatch",
            ],
        ),
        ([CONFIG, "--config.trian.steps=5"], ["'trian.steps'", "seed, train"]),
        ([CONFIG, "--config.train.steps.x=5"], ["'train.steps.x'"]),
        ([CONFIG, "--config.train=5"], ["--config.train=5"]),
        ([f"{CONFIG}:nothing"], ["'nothing'", ", ".join(models.NAMES)]),
        ([CONFIG, "--config.model=nothing"], ["'nothing'", ", ".join(models.NAMES)]),
        ([CONFIG, "--config.dataset.name=nothing"], ["'nothing'", "dsprites"]),
        ([CONFIG, "--config.dataset.source=no"], ["'no'", "resident, stream, tfds"]),
        ([CONFIG, "--mode=nothing"], ["'nothing'", "train, evaluate, report"]),
        ([CONFIG, "--wrokdir=x"], ["'wrokdir'", "workdir"]),
        ([CONFIG, "--workdir"], ["--workdir"]),
        ([CONFIG, "train"], ["'train'", "--config.KEY=VALUE"]),
        ([CONFIG, "--step=newest"], ["'newest'"]),
        ([CONFIG, "--config.train.steps=many"], ["train.steps", "'many'"]),
        ([CONFIG, "--config.train.steps=1.5"], ["train.steps", "'1.5'"]),
        ([CONFIG, "--config.hparams.beta=high"], ["hparams.beta", "'high'"]),
        ([CONFIG, "--config.population.seeds=(1,1)"], ["population.seeds", "twice"]),
        ([CONFIG, "--config.population.at_once=-2"], ["population.at_once=-2", "or -1"]),
        ([CONFIG, "--config.population.at_once=-1"], ["at_once=-1 needs train.max_minutes"]),
        ([CONFIG, "--config.train.max_minutes=-1"], ["train.max_minutes=-1.0", "no limit"]),
        ([CONFIG, "--config.train.max_minutes=nan"], ["train.max_minutes=nan", "finite"]),
        ([CONFIG, "--config.train.precision=tf32"], ["train.precision=tf32", "a CPU computes"]),
        ([CONFIG, "--config.hparams.lr_generator=-1e-4"], ["hparams.lr_generator=-0.0001"]),
        ([CONFIG, "--config.hparams.beta=nan"], ["hparams.beta=nan"]),
        ([CONFIG, "--config.train.batch_size=6"], ["train.batch_size=6", "4 devices"]),
        (["--mode=evaluate"], ["--mode=evaluate", "--workdir=DIR"]),
        (["--mode=report"], ["--mode=report", "--workdir=DIR"]),
        (["--mode=evaluate", "--workdir=nothing"], ["nothing", "no run"]),
        (["--mode=evaluate", "--workdir=x", "--config.seed=1"], ["--config.seed", "--config="]),
        ([CONFIG, "--mode=report"], ["runs/quickstart-ibgan-seed0", "no run"]),
    ],
)
def test_mistakes(mistake, arguments, said):
    line = mistake(*arguments)
    assert all(words in line for words in said), line


def test_a_config_file_that_is_none(mistake, tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:")
    assert "broken.py" in mistake("--config=broken.py")


def test_a_workdir_without_checkpoints(mistake, tmp_path, small):
    path = write_run(tmp_path / "run")
    for mode in ("evaluate", "report"):
        assert f"{path} holds no checkpoint" in mistake(f"--mode={mode}", f"--workdir={path}")


def test_a_step_that_is_not_there(mistake, copy, small):
    for mode in ("evaluate", "report"):
        line = mistake(f"--mode={mode}", f"--workdir={copy}", "--step=7")
        assert "no checkpoint 7" in line and "18, 24]" in line


@pytest.mark.parametrize("mode", ["train", "evaluate", "report"])
def test_a_workdir_of_another_configuration(mistake, tmp_path, mode):
    path = write_run(tmp_path / "run", seed=3, hparams_beta=0.5, train_steps=999)
    (path / "checkpoints/10").mkdir(parents=True)
    (path / "checkpoints/10/SHA256SUMS").touch()
    arguments = tiny.command(path, hparams_noise_end=0.25)
    line = mistake(f"--mode={mode}", *arguments)
    assert str(path) in line and "choose another --workdir" in line
    assert "seed (there 3, now 0)" in line
    assert "hparams.beta (there 0.5, now " in line
    assert "hparams.noise_end (there " in line and "now 0.25)" in line
    assert line.count("(there") == 3


def test_a_run_that_saved_nothing_does_not_hold_its_folder(mistake, tmp_path):
    path = write_run(tmp_path / "run", seed=3)
    (tmp_path / "file").touch()
    line = mistake(*tiny.command(path), f"--config.dataset.dir={tmp_path / 'file'}")
    assert "seed" not in line and "--config.dataset.dir=DIR" in line


def test_a_damaged_record(mistake, tmp_path):
    path = write_run(tmp_path / "run")
    (path / "config.json").write_text('{"config": {')
    assert f"{path}/config.json" in mistake(*tiny.command(path))


def test_directories_that_cannot_be_written(mistake, tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file/below"):
        line = mistake(CONFIG, f"--config.dataset.dir={path}")
        assert str(path) in line and "--config.dataset.dir=DIR" in line
        assert str(path) in mistake(CONFIG, f"--workdir={path}")


def test_help(capsys):
    assert launch.main(["launch.py", "--help"]) == 0
    out, err = capsys.readouterr()
    assert "--config=configs/" in out and "--mode=evaluate" in out and err == ""


def test_a_config_that_agrees_may_be_given_too(copy, small, capsys):
    given = tiny.command(copy, train_steps=48)
    assert launch.main(["launch.py", "--mode=evaluate", *given]) == 0
    assert tiny.scores(copy)["run"]["checkpoint_step"] == 24
    assert capsys.readouterr().err == ""


def test_the_default_workdir(small, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("ibgan_jax.training.loop.train", lambda config, work, *_: seen.append(work))
    assert launch.main(["launch.py", CONFIG, "--config.seed=7"]) == 0
    assert [str(work.path) for work in seen] == ["runs/quickstart-ibgan-seed7"]


@pytest.mark.parametrize(
    ("arguments", "platform", "said"),
    [
        ([CONFIG, "--config.hparams.bets=1"], "cpu", "hparams has: beta, capacity"),
        ([CONFIG], "cuda", "no device of platform 'cuda'"),
        ([CONFIG, "--config.dataset.dir=/dev/null/data"], "cpu", "/dev/null/data"),
    ],
)
def test_the_program(tmp_path, arguments, platform, said):
    if platform == "cuda" and shutil.which("nvidia-smi"):
        pytest.skip("there may be a GPU")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, tiny.ROOT / "launch.py", *arguments],
        env=os.environ | {"JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    check_one_line(done.returncode, done.stdout, done.stderr)
    assert said in done.stderr
    # Not the time on the clock, which depends on what else the machine does.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    assert not list(tmp_path.rglob("config.json"))


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ml_collections", None)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(__file__).resolve().parents[1] / "launch.py"))
    assert ended.value.code == 2
    line = "error: ml_collections is missing; pip install ml-collections\n"
    assert capsys.readouterr().err == line
