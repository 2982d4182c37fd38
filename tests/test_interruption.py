"""Runs killed, stopped and damaged: the same command ends where an undisturbed run does."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny

import launch
from ibgan_jax.errors import UserError
from ibgan_jax.training import evaluation, loop, reporting

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def watched():
    """Takes processes, ends them with the test, and kills one that hangs."""
    processes, timers = [], []

    def watch(process):
        processes.append(process)
        timers.append(threading.Timer(600, process.kill))
        timers[-1].start()
        return process

    yield watch
    for process, timer in zip(processes, timers, strict=True):
        timer.cancel()
        process.kill()
        process.communicate()


@pytest.fixture
def launched(compiled, watched):
    """Starts a process of the small run."""
    return lambda workdir: watched(tiny.start(tiny.command(workdir), compiled))


def read_until(process, words):
    """The lines up to the first with `words`."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"no {words!r} in {lines}; stderr: {process.stderr.read()}")


def finish(process):
    """Waits for a good end; returns the lines."""
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def check_same(finished, path):
    assert tiny.differing(tiny.state(finished), tiny.state(path)) == []
    assert tiny.metrics(path) == tiny.metrics(finished)


def test_killed_at_a_random_moment(finished, tmp_path, launched, small):
    logged, delay = random.choice([4, 8, 12, 16, 20]), random.uniform(0, 0.5)
    print(f"killed {delay} s after step {logged} was logged")
    process = launched(tmp_path)
    read_until(process, f"step {logged}/24")
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    *_, report, told = finish(launched(tmp_path))
    assert report == f"report: {tmp_path}/report.html" and told.startswith("wall time ")
    check_same(finished, tmp_path)
    assert tiny.scores(tmp_path) == tiny.scores(finished)


def test_stopped_twice(finished, tmp_path, launched, small):
    reached = 0
    for kind, words in ((signal.SIGTERM, "step 4/24"), (signal.SIGINT, "resuming")):
        process = launched(tmp_path)
        lines = read_until(process, words)
        assert reached == 0 or lines == [f"resuming {tmp_path} at step {reached}\n"]
        process.send_signal(kind)
        _, err = process.communicate()
        assert process.returncode == 1
        before, reached = reached, max(map(int, os.listdir(tmp_path / "checkpoints")))
        assert before < reached < 24
        assert err == f"stopped and saved at step {reached}; the same command goes on\n"
    finish(launched(tmp_path))
    check_same(finished, tmp_path)


def test_sigterm_outside_training_ends_with_a_line(copy, watched, compiled):
    process = watched(tiny.start(["--mode=evaluate", str(copy)], compiled))
    read_until(process, "scoring")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert (process.returncode, err) == (1, f"{launch.INTERRUPTED}\n")


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_second_signal_acts_at_once(kind):
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyboardInterrupt), loop._stop_signals() as stop:
        assert not stop()
        signal.raise_signal(kind)
        assert stop()
        signal.raise_signal(kind)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_while_the_last_step_is_scored(finished, copy, small, monkeypatch):
    shutil.rmtree(copy / "checkpoints/24")
    (copy / "report.html").unlink(missing_ok=True)
    score = evaluation.score_members

    def struck(*given):
        signal.raise_signal(signal.SIGTERM)
        return score(*given)

    with monkeypatch.context() as patch, pytest.raises(loop.InterruptedRunError, match="step 24;"):
        patch.setattr(evaluation, "score_members", struck)
        tiny.train(copy)
    assert not (copy / "report.html").exists()
    assert f"{copy} has 24 of 24 steps: nothing to train" in tiny.train(copy)
    assert (copy / "report.html").exists()
    check_same(finished, copy)


def test_checkpoints_of_nobody_knows_what(copy, small):
    (copy / "config.json").unlink()
    with pytest.raises(UserError, match="says what its checkpoints are of; put back a copy"):
        tiny.train(copy)
    assert not (copy / "config.json").exists()


@pytest.mark.parametrize("place", ["state", "record", "SHA256SUMS"])
def test_one_flipped_bit(finished, copy, monkeypatch, small, place):
    monkeypatch.setattr(reporting, "finish", lambda *args: None)
    newest = copy / "checkpoints/24"
    files = [newest / place] if (newest / place).is_file() else (newest / place).rglob("*")
    path = max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    said, resumed, *_ = tiny.train(copy)
    assert said.startswith(f"{newest} is damaged (") and "using step 18 instead" in said
    assert resumed == f"resuming {copy} at step 18"
    check_same(finished, copy)


@pytest.mark.slow
def test_the_real_program_killed(full_directory, tmp_path, watched):
    """Nothing patched: launch.py on the whole data set, compiled anew by every process."""

    def start(workdir):
        settings = tiny.SETTINGS | {"dataset.dir": full_directory}
        command = [sys.executable, "launch.py", f"--config={tiny.CONFIG}", f"--workdir={workdir}"]
        command += [f"--config.{key}={value}" for key, value in settings.items()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return watched(subprocess.Popen(command, cwd=tiny.ROOT, **pipes))

    finish(start(tmp_path / "whole"))
    for words in ("step 8/24", "step 20/24"):
        process = start(tmp_path / "killed")
        read_until(process, words)
        time.sleep(random.uniform(0, 1))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(start(tmp_path / "killed"))
    check_same(tmp_path / "whole", tmp_path / "killed")
    assert tiny.scores(tmp_path / "whole") == tiny.scores(tmp_path / "killed")
