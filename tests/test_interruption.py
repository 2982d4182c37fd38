"""Runs killed, stopped and damaged: the same command ends where an undisturbed run does."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from ibgan_jax.training import evaluation, loop

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def launched(compiled):
    """Starts processes of the small run and leaves none behind."""
    processes = []

    def start(workdir):
        processes.append(tiny.start(tiny.command(workdir), compiled))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


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
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def check_same(finished, path):
    assert tiny.differing(tiny.state(finished), tiny.state(path)) == []
    assert tiny.metrics(path) == tiny.metrics(finished)


def test_killed_at_random_moments(finished, tmp_path, launched, small):
    moment = random.Random()
    logged, delays = moment.choice([4, 8, 12, 16, 20]), [moment.uniform(0, 0.5) for _ in range(2)]
    print(f"killed {delays[0]} s after step {logged} and {delays[1]} s after resuming")
    for words, delay in zip((f"step {logged}/24", "resuming"), delays, strict=True):
        process = launched(tmp_path)
        read_until(process, words)
        time.sleep(delay)
        process.kill()
        process.communicate()
        if process.returncode == 0:
            break  # it was through before the kill
    assert finish(launched(tmp_path))[-1] == f"report: {tmp_path}/report.html"
    check_same(finished, tmp_path)
    assert tiny.scores(tmp_path) == tiny.scores(finished)


@pytest.mark.parametrize("kind", SIGNALS)
def test_stopped(finished, tmp_path, launched, small, kind):
    process = launched(tmp_path)
    read_until(process, "step 8/24")
    process.send_signal(kind)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    step = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 8 <= step < 24
    assert err == f"stopped and saved at step {step}; the same command goes on\n"
    assert finish(launched(tmp_path))[0] == f"resuming {tmp_path} at step {step}"
    check_same(finished, tmp_path)


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_second_signal_acts_at_once(kind):
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(KeyboardInterrupt), loop._stop_signals() as stop:
        assert not stop()
        signal.raise_signal(kind)
        assert stop()
        signal.raise_signal(kind)
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("place", ["state", "record", "SHA256SUMS"])
def test_one_flipped_bit(finished, copy, monkeypatch, small, place):
    monkeypatch.setattr(evaluation, "finish", lambda *args: None)
    newest = copy / "checkpoints/24"
    files = [newest / place] if (newest / place).is_file() else (newest / place).rglob("*")
    path = max((path for path in files if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << random.randrange(8)
    path.write_bytes(content)
    said, resumed, *_ = tiny.train(copy)
    assert said.startswith(f"{newest} is damaged (") and "using step 20 instead" in said
    assert resumed == f"resuming {copy} at step 20"
    check_same(finished, copy)


@pytest.mark.slow
def test_the_real_program_killed(full_directory, tmp_path):
    """Nothing patched: launch.py on the whole data set, compiled anew by every process."""

    def start(workdir):
        settings = tiny.SETTINGS | {"dataset.dir": full_directory}
        command = [sys.executable, "launch.py", f"--config={tiny.CONFIG}", f"--workdir={workdir}"]
        command += [f"--config.{key}={value}" for key, value in settings.items()]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=Path(tiny.ROOT), **pipes)

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
