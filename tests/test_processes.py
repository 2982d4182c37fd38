"""Jobs of several processes on this machine: the same numbers, and an end that all share."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny

SHAPES = ((1, 1), (1, 4), (2, 2), (4, 1))  # processes, devices of each


def start(program, processes, devices, arguments, cache):
    """The processes of a job of `program`; `arguments(coordinator, process)` are its words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_ENABLE_X64": str(int(program == "member.py")),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen(
            [sys.executable, tiny.ROOT / "tests" / program, *arguments(coordinator, process)],
            env=environment,
            **pipes,
        )
        for process in range(processes)
    ]


def run(shape, work, workdirs, cache):
    """What the processes of a job of member.py print, the same in all of them."""
    processes, devices = shape
    job = start(
        "member.py",
        processes,
        devices,
        lambda at, i: [at, str(processes), str(i), work, *map(str, workdirs)],
        cache,
    )
    printed = []
    for process in job:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        printed.append(json.loads(out.splitlines()[-1]))
    assert all(other == printed[0] for other in printed)
    return printed[0]


def test_two_processes_train_as_one_does(tmp_path):
    paths = [tmp_path / "one", tmp_path / "two"]
    one = run((1, 1), "train", paths[:1], tmp_path / "cache")
    two = run((2, 1), "train", paths[1:], tmp_path / "cache")
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-9)
    restored = run((1, 1), "restore", paths, tmp_path / "cache")
    assert restored == [one["state"], two["state"]]


@pytest.mark.slow
def test_every_shape_trains_alike_and_restores_the_others(tmp_path):
    paths = [tmp_path / f"{processes}x{devices}" for processes, devices in SHAPES]
    trained = [
        run(s, "train", [path], tmp_path / "cache") for s, path in zip(SHAPES, paths, strict=True)
    ]
    for other in trained[1:]:
        np.testing.assert_allclose(other["losses"], trained[0]["losses"], rtol=1e-9)
    states = [one["state"] for one in trained]
    for shape in SHAPES:
        assert run(shape, "restore", paths, tmp_path / "cache") == states


@pytest.fixture
def launched(tmp_path):
    """Starts a job of launch.py with two processes: (they, what it says until it trains)."""
    started = []

    def arguments(coordinator, process):
        words = tiny.command(tmp_path / "run", train_steps=100_000, train_log_every=2)
        job = [f"--coordinator={coordinator}", "--num_processes=2", f"--process_id={process}"]
        return [*words, *job]

    def launch():
        job = start("tiny.py", 2, 1, arguments, tmp_path / "cache")
        started.extend(job)
        said = []
        for line in job[0].stdout:
            said.append(line)
            if line.startswith("step "):
                return job, said
        raise AssertionError(job[0].stderr.read())

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def ends(job, seconds=60):
    """(exit status, last line of what it says is wrong) of each process, all within `seconds`."""
    until = time.monotonic() + seconds
    found = []
    for process in job:
        _, err = process.communicate(timeout=until - time.monotonic())
        found.append((process.returncode, err.splitlines()[-1]))
    return found


@pytest.mark.faults
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_ends_the_other_which_names_it(launched, lost, kind):
    job, _ = launched()
    job[lost].send_signal(kind)
    ((status, said),) = ends([job[1 - lost]])
    assert status == 1
    assert f"process {lost} of 2 is lost" in said and "start the same command again" in said
    if kind == signal.SIGSTOP:
        job[lost].send_signal(signal.SIGCONT)
        ((status, said),) = ends([job[lost]])
        assert status == 1 and "is lost" in said


@pytest.mark.faults
def test_a_signal_to_one_stops_and_saves_all(launched, tmp_path):
    job, _ = launched()
    job[1].send_signal(signal.SIGTERM)
    found = ends(job)
    assert [status for status, _ in found] == [1, 1]
    assert all(said.startswith("stopped and saved at step") for _, said in found)
    step = int(found[0][1].split("step ")[1].split(";")[0])
    assert (tmp_path / "run" / "checkpoints" / str(step) / "SHA256SUMS").exists()
    _, said = launched()
    assert f"resuming {tmp_path / 'run'} at step {step}\n" in said


@pytest.mark.slow
def test_all_end_together_when_the_time_is_up(tmp_path):
    """However far they come by then, and with one word."""

    def arguments(coordinator, process):
        changed = {"train_steps": 100_000, "train_log_every": 2, "train_max_minutes": 1.0}
        job = [f"--coordinator={coordinator}", "--num_processes=2", f"--process_id={process}"]
        return [*tiny.command(tmp_path / "run", **changed), *job]

    found = ends(start("tiny.py", 2, 1, arguments, tmp_path / "cache"), 300)
    assert [status for status, _ in found] == [3, 3]
    assert found[0][1] == found[1][1] and found[0][1].startswith("time is up at step ")
