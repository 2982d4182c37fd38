"""The records in a run's folder."""

import random

import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.training import workdir as workdirs
from ibgan_jax.training.workdir import Workdir

SCORES = {
    "factor_vae": {"value": 0.61, "votes": [[3, 0], [1, 4]], "interval": [0.58, 0.64]},
    "training": {"best": None, "mean": 1e-7},
    "run": {"model": "ibgan", "seed": 0, "checkpoint_step": 24},
}


@pytest.fixture
def workdir(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_scores(SCORES)
    return workdir


def test_scores_are_read_as_written(workdir):
    assert workdir.read_scores() == SCORES
    workdir.scores.unlink()
    assert workdir.read_scores() is None
    workdir.write_json(workdir.scores, SCORES)  # as they were before they had a checksum
    assert workdir.read_scores() == SCORES


def test_no_flipped_bit_gives_another_score(workdir):
    whole = workdir.scores.read_bytes()
    noticed = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.Random(place).randrange(8)
        workdir.scores.write_bytes(damaged)
        try:
            found = workdir.read_scores()
        except UserError as error:
            assert str(error).startswith(f"{workdir.scores} is damaged (")
            noticed += 1
        else:
            # The name of the checksum itself, which leaves the scores alone.
            run = {key: found["run"][key] for key in SCORES["run"]}
            assert found | {"run": run} == SCORES
    assert noticed > len(whole) / 2


def test_the_commit_comes_from_git_else_from_where_it_was_written(tmp_path, monkeypatch):
    monkeypatch.setattr(workdirs, "_TREE", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("IBGAN_COMMIT", raising=False)
    assert workdirs.environment()["commit"] is None
    (tmp_path / "COMMIT").write_text("c0ffee\n")
    assert workdirs.environment()["commit"] == "c0ffee"
    monkeypatch.setenv("PATH", str(tmp_path))  # without git
    assert workdirs.environment()["commit"] == "c0ffee"
    monkeypatch.setenv("IBGAN_COMMIT", "decaf")
    assert workdirs.environment()["commit"] == "decaf"
