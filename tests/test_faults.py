"""Training that a signal strikes, at 36 moments: taken up again it ends where it would have."""

import random
import re
import signal

import pytest
import struck
import tiny

import launch
from ibgan_jax.training import reporting

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("small")]
KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SAVED = re.compile(r"stopped and saved at step \d+; the same command goes on\n")


@pytest.fixture(scope="module")
def whole(finished, compiled, tmp_path_factory):
    """(seconds, file operations) of a run as a program, whose result is that of `finished`."""
    path = tmp_path_factory.mktemp("whole") / "run"
    found = struck.whole(tiny.command(path), compiled, path)
    check_same(finished, path)
    return found


def check_same(finished, path):
    assert tiny.differing(tiny.state(finished), tiny.state(path)) == []
    assert tiny.metrics(path) == tiny.metrics(finished)
    assert tiny.scores(path) == tiny.scores(finished)


def check_end(kind, status, err):
    """As the README says: saved, or in one line not; 0 when all was done before the signal."""
    if kind == signal.SIGKILL or status == 0:
        assert (status, err) in ((0, ""), (-signal.SIGKILL, ""))
    else:
        assert status == 1
        assert err == f"{launch.INTERRUPTED}\n" or SAVED.fullmatch(err)


def check_taken_up(finished, path, monkeypatch):
    monkeypatch.setattr(reporting, "report", lambda *args, **more: None)
    said = tiny.train(path)
    assert not any("damaged" in line for line in said)
    check_same(finished, path)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_at_a_moment(finished, whole, tmp_path, compiled, monkeypatch, kind, seed):
    """The moment is uniform over the whole life of the program."""
    seconds = random.Random(f"moment {kind} {seed}").uniform(0, whole[0])
    with struck.running(tiny.command(tmp_path / "run"), compiled) as process:
        check_end(kind, *struck.after(process, seconds, kind))
    check_taken_up(finished, tmp_path / "run", monkeypatch)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_at_a_file_operation(finished, whole, tmp_path, compiled, monkeypatch, kind, seed):
    """The operation is any of those in the workdir, of saves most of all."""
    number = random.Random(f"operation {kind} {seed}").randint(1, whole[1])
    path = tmp_path / "run"
    with struck.running(tiny.command(path), compiled, path, kind, number) as process:
        _, err = process.communicate(timeout=struck.SECONDS)
        check_end(kind, process.returncode, err)
        assert process.returncode or kind != signal.SIGKILL
    check_taken_up(finished, path, monkeypatch)
