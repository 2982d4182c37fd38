"""scripts/slurm.sh: when the job requeues itself, and what a warning does."""

import os
import signal
import subprocess
import time

import pytest
import tiny

SCRIPT = tiny.ROOT / "scripts/slurm.sh"
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$*" > "$LOGS/srun"
trap 'touch "$LOGS/term"; exit "$AFTER_TERM"' TERM
touch "$LOGS/ready"
[[ $STATUS == wait ]] || exit "$STATUS"
while :; do sleep 0.05; done
"""
SCONTROL = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$LOGS/scontrol"
"""


@pytest.fixture
def job(tmp_path):
    """Starts the script with stand-ins for Slurm's commands."""
    (tmp_path / "bin").mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    started = []

    def start(status, after_term=1):
        environment = os.environ | {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "LOGS": str(tmp_path),
            "STATUS": str(status),
            "AFTER_TERM": str(after_term),
            "SLURM_JOB_ID": "17",
        }
        started.append(
            subprocess.Popen(["bash", SCRIPT, "--config=c.py", "--x=a b"], env=environment)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def requeued(tmp_path):
    log = tmp_path / "scontrol"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(("status", "lines"), [(0, []), (1, []), (2, []), (3, ["requeue 17"])])
def test_the_job_requeues_itself_when_time_is_up(job, tmp_path, status, lines):
    assert job(status).wait(timeout=30) == status
    assert requeued(tmp_path) == lines
    assert (tmp_path / "srun").read_text().endswith("launch.py --config=c.py --x=a b\n")


@pytest.mark.parametrize(
    ("after_term", "lines"), [(1, ["requeue 17"]), (143, ["requeue 17"]), (0, []), (2, [])]
)
def test_a_warning_is_passed_on_and_what_is_left_requeued(job, tmp_path, after_term, lines):
    process = job("wait", after_term)
    until = time.monotonic() + 30
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == after_term
    assert (tmp_path / "term").exists()
    assert requeued(tmp_path) == lines
