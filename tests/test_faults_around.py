"""What goes wrong around a run: full disks, numbers that are none, clocks, other processes."""

import contextlib
import json
import random
import resource
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import struck
import test_faults
import test_packed
import tiny

import launch
from ibgan_jax.data import variants
from ibgan_jax.data.order import Order
from ibgan_jax.errors import UserError
from ibgan_jax.training import evaluation, loop, member, reporting
from ibgan_jax.training.checkpoint import Checkpoints
from ibgan_jax.training.population import Population
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("small")]


@pytest.fixture
def refused(capsys):
    """Runs launch.py, which must refuse in one line, and returns that."""

    def call(*arguments):
        status = launch.main(["launch.py", *map(str, arguments)])
        err = capsys.readouterr().err
        assert (status, err.count("\n")) == (2, 1), err
        assert err.startswith("error: ")
        return err

    return call


@contextlib.contextmanager
def full(size):
    """Inside, no file grows beyond `size` bytes: the nearest thing to a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def at_line(words, act):
    """A log that acts once, when a line with `words` comes."""
    acts = [act]

    def log(line):
        if words in line and acts:
            acts.pop()()

    return log


# Disks and folders


def test_a_disk_full_at_a_save(finished, tmp_path, compiled, monkeypatch):
    with struck.running(tiny.command(tmp_path), compiled) as process:
        while not process.stdout.readline().startswith("step 12/"):
            assert process.poll() is None
        # While it is scored: leaves room for the records, but not for a checkpoint's largest file.
        (events,) = tmp_path.glob("events*")
        room = events.stat().st_size + 8192
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
        _, err = process.communicate(timeout=struck.SECONDS)
    assert (process.returncode, err.count("\n")) == (2, 1), err
    assert err.startswith(f"error: cannot save a checkpoint in {tmp_path}/checkpoints (")
    assert "File too large)" in err
    # That of step 6, unless this test was slow to fill the disk.
    newest = Checkpoints(tmp_path / "checkpoints").steps()[-1]
    assert newest in (6, 12)
    check_goes_on(finished, tmp_path, newest, monkeypatch)


def test_a_disk_full_at_the_cache(tmp_path):
    size = random.Random("cache").randrange(test_packed.records().size)
    with full(size), pytest.raises(UserError, match=r"cannot be written \(File too large"):
        test_packed.load(tmp_path / "set.npy")
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(test_packed.load(tmp_path / "set.npy"), test_packed.records())


def test_a_disk_full_at_the_scores(copy, refused):
    before = (copy / "scores.json").read_bytes()
    with full(len(before) // 2):
        said = refused("--mode=evaluate", f"--workdir={copy}")
    assert str(copy) in said and "File too large" in said
    assert (copy / "scores.json").read_bytes() == before


@pytest.mark.parametrize("name", ["", "checkpoints", "figures"])
def test_a_file_where_a_folder_belongs(tmp_path, refused, name):
    path = tmp_path / "run" / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert str(path) in refused(*tiny.command(tmp_path / "run"))


# Numbers that are none


class _Broken(variants.Variant):
    """Image `bad` is not a number."""

    bad = int(Order(180, 0).indices(60, 1)[0])  # at position 60: of step 8, whose batch is 8

    def paint(self, arrays, sprites, extra, index):
        bad = (jnp.asarray(index) == self.bad)[..., None, None, None]
        return jnp.where(bad, jnp.nan, super().paint(arrays, sprites, extra, index))


def test_nan_in_a_batch(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(variants, "make", lambda *args: _Broken())
        with pytest.raises(member.DivergedError, match="is nan at step 8; the last good"):
            tiny.train(tmp_path)
    check_goes_on(finished, tmp_path, 6, monkeypatch)


def check_goes_on(finished, path, step, monkeypatch):
    """It resumes at `step` and ends as an undisturbed run."""
    monkeypatch.setattr(reporting, "report", lambda *args, **more: None)
    assert f"resuming {path} at step {step}" in tiny.train(path)
    test_faults.check_same(finished, path)


def spoiled(state, value):
    """`state` with `value` for the first number of one array of parameters."""
    leaves, structure = jax.tree.flatten(state.params)
    place = random.Random("parameter").randrange(len(leaves))
    leaf = leaves[place]
    first = (0,) * leaf.ndim
    leaves[place] = jax.device_put(leaf.at[first].set(value), leaf.sharding)
    return state.replace(params=jax.tree.unflatten(structure, leaves))


def test_infinity_in_a_parameter(finished, tmp_path, monkeypatch):
    advance = Population.advance

    def wrapped(self, batches):
        if int(self._states[0].step[0]) == 20:
            self._states[0] = spoiled(self._states[0], jnp.inf)
        advance(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(Population, "advance", wrapped)
        with pytest.raises(member.DivergedError, match="at step 21; the last good"):
            tiny.train(tmp_path)
    check_goes_on(finished, tmp_path, 18, monkeypatch)


def test_a_checkpoint_with_nan_is_not_scored(copy, refused):
    checkpoints = Checkpoints(copy / "checkpoints")
    state, _, extra = checkpoints.restore(tiny.template())
    checkpoints.save(30, spoiled(state, jnp.nan), score=None, extra=extra)
    checkpoints.close()
    before = (copy / "scores.json").read_bytes()
    said = refused("--mode=evaluate", f"--workdir={copy}")
    assert f"{copy}/checkpoints/30" in said and "not finite" in said
    assert (copy / "scores.json").read_bytes() == before


# Clocks, other runs, other settings


@pytest.mark.parametrize("jump", [-3600, 365 * 86400])
def test_a_clock_that_jumps(finished, tmp_path, monkeypatch, jump):
    monkeypatch.setattr(reporting, "report", lambda *args, **more: None)

    def jumps():
        for name in ("time", "monotonic", "perf_counter"):
            real = getattr(time, name)
            monkeypatch.setattr(time, name, lambda real=real: real() + jump)

    loop.train(tiny.config(), Workdir(tmp_path), at_line("step 12/", jumps))
    test_faults.check_same(finished, tmp_path)
    rates = [json.loads(line)["steps_per_second"] for line in (tmp_path / "metrics.jsonl").open()]
    assert all(rate > 0 for rate in rates)


def test_two_runs_in_one_folder(finished, tmp_path, compiled, refused):
    words = tiny.command(tmp_path)
    with struck.running(words, compiled) as process:
        while not process.stdout.readline().startswith("step 4/"):
            assert process.poll() is None
        assert f"another process trains in {tmp_path}" in refused(*words)
        _, err = process.communicate(timeout=struck.SECONDS)
        assert (process.returncode, err) == (0, "")
    test_faults.check_same(finished, tmp_path)


def test_another_config(copy, refused):
    said = refused(*tiny.command(copy, hparams_beta=0.5, train_batch_size=16))
    assert "hparams.beta (there 0.07, now 0.5)" in said
    assert "train.batch_size (there 8, now 16)" in said


def test_evaluating_killed_at_its_scores(copy, compiled):
    """scores.json is the one of before or the new one, never half."""
    before = tiny.scores(copy)
    (copy / "scores.json").write_text(json.dumps({**before, "old": True}))
    words = ["--mode=evaluate", f"--workdir={copy}"]
    number = random.Random("scores").randint(1, 2)
    with struck.running(words, compiled, "scores.json", signal.SIGKILL, number) as process:
        process.communicate(timeout=struck.SECONDS)
        assert process.returncode == -signal.SIGKILL
    assert tiny.scores(copy) in (before, {**before, "old": True})
    evaluation.evaluate(build(tiny.config()), Workdir(copy))
    assert tiny.scores(copy) == before
