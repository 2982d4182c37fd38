"""Files damaged behind the program's back: the same result, or one line that names the file."""

import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import test_image_records
import test_packed
import tiny

import launch
from ibgan_jax.data import packed
from ibgan_jax.errors import UserError
from ibgan_jax.training import evaluation, loop, reporting
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

pytestmark = pytest.mark.faults


def damage(files, rng):
    """Flips a bit of one of `files`, cuts, empties or removes it; returns what was done."""
    path = rng.choice(sorted(path for path in files if path.stat().st_size))
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "flip", "cut", "empty", "remove"))
    at = rng.randrange(len(content))
    if kind == "remove":
        path.unlink()
    elif kind == "flip":
        content[at] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    else:
        path.write_bytes(content[: at if kind == "cut" else 0])
    return f"{kind} {path} at {at}"


@pytest.fixture(scope="module")
def interrupted(compiled, tmp_path_factory):
    """The workdir of a run stopped at step 22 of 24 and scored there; tests change copies."""
    path = tmp_path_factory.mktemp("interrupted") / "run"

    def stop(line):
        if line.startswith("step 20/"):
            signal.raise_signal(signal.SIGTERM)

    with tiny.quick(compiled):
        with pytest.raises(loop.InterruptedRunError, match="saved at step 22"):
            loop.train(tiny.config(), Workdir(path), stop)
        evaluation.evaluate(build(tiny.config()), Workdir(path), log=stop)
    return path


@pytest.fixture
def stopped(interrupted, tmp_path):
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def resumes(finished, path, monkeypatch):
    """Whether the run goes on to what it would have been; if not, one line says why."""
    monkeypatch.setattr(reporting, "report", lambda *args, **more: None)
    try:
        tiny.train(path)
    except UserError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return False
    assert tiny.differing(tiny.state(finished), tiny.state(path)) == []
    assert tiny.metrics(path) == tiny.metrics(finished)
    assert tiny.scores(path) == tiny.scores(finished)
    return True


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_checkpoint(finished, stopped, monkeypatch, seed):
    newest = stopped / "checkpoints/22"
    files = [path for path in newest.rglob("*") if path.is_file()]
    print(damage(files, random.Random(f"checkpoint {seed}")))
    assert resumes(finished, stopped, monkeypatch)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(4))
def test_damaged_metrics(finished, stopped, monkeypatch, seed):
    print(damage([stopped / "metrics.jsonl"], random.Random(f"metrics {seed}")))
    assert resumes(finished, stopped, monkeypatch)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_config(finished, stopped, monkeypatch, seed):
    print(damage([stopped / "config.json"], random.Random(f"config {seed}")))
    resumes(finished, stopped, monkeypatch)


@pytest.mark.usefixtures("small")
def test_damaged_scores_are_made_anew(finished, stopped, monkeypatch):
    print(damage([stopped / "scores.json"], random.Random("scores")))
    assert resumes(finished, stopped, monkeypatch)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("part", [0, 0.5])
def test_cut_scores_are_not_drawn(stopped, capsys, part):
    whole = (stopped / "scores.json").read_bytes()
    (stopped / "scores.json").write_bytes(whole[: int(part * len(whole))])
    assert launch.main(["launch.py", "--mode=report", f"--workdir={stopped}"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert f"{stopped}/scores.json is damaged; scoring again" in said.out
    assert (stopped / "scores.json").read_bytes() == whole


@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_cache(tmp_path, seed):
    path, lines = tmp_path / "set.npy", []
    test_packed.load(path)
    print(damage([path, packed.note_path(path)], random.Random(f"cache {seed}")))
    found = test_packed.load(path, log=lines.append)
    np.testing.assert_array_equal(found, test_packed.records())
    assert not any("\n" in line for line in lines)
    again = test_packed.load(path, make=test_packed.never)
    np.testing.assert_array_equal(again, test_packed.records())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_stream(finished, tmp_path, monkeypatch, seed):
    """Noticed as the files are opened, or when a step asks for what was damaged, or not needed."""
    settings = {"dataset_source": "stream", "dataset_dir": str(tmp_path / "data")}
    monkeypatch.setattr(reporting, "finish", lambda *args: None)
    tiny.load("dsprites", "stream", tmp_path / "data")
    files = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    print(damage(files, random.Random(f"stream {seed}")))
    try:
        tiny.train(tmp_path / "run", **settings)
    except UserError as error:
        assert "is damaged (" in str(error) and "\n" not in str(error)
    else:
        assert tiny.differing(tiny.state(finished), tiny.state(tmp_path / "run")) == []


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return test_image_records.write(tmp_path_factory.mktemp("prepared"))


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_prepared_set(prepared, tmp_path, seed):
    directory, images = prepared
    shutil.copytree(directory, tmp_path / "data")
    place = tmp_path / "data/images/folder-16/1.0.0"
    print(damage(place.iterdir(), random.Random(f"prepared {seed}")))
    test_image_records.check_damage(tmp_path / "data", place, images)
