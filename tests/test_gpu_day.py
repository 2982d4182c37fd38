"""scripts/gpu_day.sh, rehearsed: the small run, as on an accelerator, whole and cut off."""

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import tiny

from benchmarks import rental
from ibgan_jax import config as configs
from ibgan_jax.errors import UserError
from ibgan_jax.training.workdir import Workdir
from ibgan_jax.unpack import unpack

SCRIPT = tiny.ROOT / "scripts/gpu_day.sh"
CONFIG = """
from configs import quickstart


def get_config(model="ibgan"):
    config = quickstart.get_config(model)
    config.update_from_flattened_dict(%r)
    config.population.seeds = (0, 1, 2)
    return config
"""
# A CPU has float32 alone, and a run so short has few steps between two log points.
OVERRIDES = {
    "train.precision": "float32",
    "train.steps_per_dispatch": 2,
    "train.log_every": 4,
    "train.evaluate_every": 12,
}
MEASURED = {
    "rows": [
        {"convolution": "patches", "precision": "bfloat16", "ms_a_member": 0.2},
        {"convolution": "patches", "precision": "float16", "ms_a_member": 0.3},
        {"convolution": "patches", "precision": "tf32", "ms_a_member": 0.5},
        {"convolution": "filtered", "precision": "float32", "ms_a_member": 0.9},
        {"convolution": "lax", "precision": "tf32", "error": "out of memory"},
    ]
}


@pytest.fixture
def rehearsal(tmp_path, compiled):
    """Starts the script for so many minutes; its process, whose files lie in tmp_path."""
    (tmp_path / "plan.txt").write_text(f"# a plan\ntiny {tmp_path / 'small.py'}:ibgan\n")
    (tmp_path / "small.py").write_text(CONFIG % tiny.SETTINGS)
    (tmp_path / "measured.json").write_text(json.dumps(MEASURED))
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tiny.ROOT}:{tiny.ROOT / 'tests'}",
        "PLAN": str(tmp_path / "plan.txt"),
        "MEASURED": str(tmp_path / "measured.json"),
        "WORK": str(tmp_path / "work"),
        "LAUNCH": "tests/accelerated.py",
        "RESERVE": "5",
        "SETTINGS": " ".join(f"--config.{key}={value}" for key, value in OVERRIDES.items()),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }

    def start(minutes):
        command = ["bash", str(SCRIPT), str(minutes), str(tmp_path / "out")]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    return start


def usable(out):
    """Every file in OUT can be read to its end; the names of what the archives hold."""
    names = set()
    for path in out.iterdir() if out.exists() else ():
        if path.name.startswith("."):
            continue  # cut off while it was copied
        if path.suffix in (".tar", ".gz"):
            with tarfile.open(path) as archive:
                for member in archive:
                    if member.isfile():
                        assert len(archive.extractfile(member).read()) == member.size
                        names.add(member.name)
        elif path.suffix == ".json":
            json.loads(path.read_text())
    return names


@pytest.mark.slow
def test_whole_day(rehearsal, tmp_path):
    process = rehearsal(2.0)
    printed, _ = process.communicate(timeout=170)
    assert process.returncode == 0, printed
    out = tmp_path / "out"
    assert "training ended with status 0" in printed, printed
    assert len(list(out.iterdir())) <= 8
    runs = [f"quickstart-ibgan-seed{seed}" for seed in range(3)]
    names = usable(out)
    assert {f"{run}/weights.npz" for run in runs} <= names
    unpack(sorted(out.glob("tiny*.tar")), tmp_path / "results/tiny", lambda line: None)
    for run in runs:
        scores = Workdir(tmp_path / "results/tiny" / run).read_scores()
        assert scores["run"]["checkpoint_step"] == tiny.STEPS
        assert scores["factor_vae"]["value"] > 0


@pytest.mark.slow
def test_cut_off_at_random_moments(rehearsal, tmp_path):
    draw, started = random.Random(0), time.monotonic()
    rehearsal(2.0).communicate(timeout=170)
    longest = time.monotonic() - started
    for _ in range(5):
        process = rehearsal(2.0)
        time.sleep(draw.uniform(1, longest))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        usable(tmp_path / "out")
    process = rehearsal(2.0)  # and the machine is as good as before
    printed, _ = process.communicate(timeout=170)
    assert process.returncode == 0, printed
    assert any(name.endswith("weights.npz") for name in usable(tmp_path / "out"))


def test_wrong_arguments(tmp_path):
    def run(*arguments):
        return subprocess.run(["bash", SCRIPT, *arguments], capture_output=True, text=True)

    assert run().returncode == run("ten", tmp_path).returncode == 2
    assert "MINUTES=ten is not a number" in run("ten", tmp_path).stderr


def test_a_card_that_was_measured_is_not_measured_again(tmp_path):
    smi = tmp_path / "bin/nvidia-smi"
    smi.parent.mkdir()
    smi.write_text("#!/bin/sh\necho NVIDIA H200\n")
    smi.chmod(0o755)
    (tmp_path / "plan.txt").write_text("not a plan\n")  # ends it before anything is trained
    environment = os.environ | {
        "PATH": f"{smi.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PLAN": str(tmp_path / "plan.txt"),
        "WORK": str(tmp_path / "work"),
    }
    command = ["bash", SCRIPT, "1", tmp_path / "out"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "NVIDIA H200 was measured before: results/benchmarks/gpu-h200.json" in ended.stdout
    assert ended.returncode == 1 and "plan.txt, line 1" in ended.stdout + ended.stderr
    there = json.loads((tmp_path / "out/gpu.json").read_text())
    assert there["machine"]["device"] == "NVIDIA H200"


def finished(folder, seeds, step=150_000):
    for seed in seeds:
        path = folder / f"dsprites-ibgan-seed{seed}"
        path.mkdir(parents=True)
        (path / "scores.json").write_text(json.dumps({"run": {"checkpoint_step": step}}))


def test_the_first_unfinished_item_is_next(tmp_path):
    plan = tiny.ROOT / "scripts/gpu_plan.txt"
    name, flags = rental.arguments(plan, tmp_path, {})
    assert name == "ibgan-dsprites"
    assert "--config.population.seeds=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)" in flags
    finished(tmp_path / name, range(4))
    finished(tmp_path / name, [4], step=100_000)
    _, flags = rental.arguments(plan, tmp_path, {})
    assert "--config.population.seeds=(4, 5, 6, 7, 8, 9)" in flags
    (tmp_path / name / "dsprites-ibgan-seed4/scores.json").unlink()
    (tmp_path / name / "dsprites-ibgan-seed4").rmdir()
    finished(tmp_path / name, range(4, 10))
    assert rental.arguments(plan, tmp_path, {})[0] == "vae-dsprites"


def test_every_item_of_the_plan_can_be_trained():
    for _, path in rental.items(tiny.ROOT / "scripts/gpu_plan.txt"):
        config = rental.load(str(tiny.ROOT / path))
        config.train.max_minutes = 8.0
        config.update_from_flattened_dict({**rental.SETTINGS})
        configs.check(config)
        assert len(configs.members(config)) >= 10


def test_16_bits_only_where_they_agree():
    agrees = {"rows": {"float16": {"agrees": True}, "bfloat16": {"agrees": False}}}
    assert rental.way(MEASURED, agrees)["train.precision"] == "float16"
    assert rental.way(MEASURED, {"rows": {"float16": {"agrees": False}}}) == {
        "train.precision": "tf32",
        "train.convolution": "patches",
    }
    assert rental.way(MEASURED, {})["train.precision"] == "tf32"
    for nothing in ([], MEASURED["rows"][:2], MEASURED["rows"][-1:]):
        chosen = rental.way({"rows": nothing}, {})
        assert chosen == {"train.precision": "tf32", "train.convolution": "auto"}


def test_a_plan_that_cannot_be_read(tmp_path):
    plan = Path(tmp_path / "plan.txt")
    plan.write_text("one two three\n")
    with pytest.raises(UserError, match="line 1"):
        list(rental.items(plan))
