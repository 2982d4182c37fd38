"""Sets of images from the archive to the report, by the commands that the README gives."""

import json
import os
import re
import signal
import subprocess
import sys

import archives
import jax
import numpy as np
import pytest
import tiny

from ibgan_jax import data
from ibgan_jax.data import preparing
from ibgan_jax.data.order import Order

pytest.importorskip("grain")
pytest.importorskip("tensorflow_datasets")

STEPS = 50
SMALL = {
    "network.generator_width": 2,
    "network.discriminator_width": 2,
    "train.batch_size": 8,
    "train.steps": STEPS,
    "train.steps_per_dispatch": 5,
    "train.log_every": 5,
    "train.evaluate_every": 50,
    "train.checkpoint_every": 10,
}


def zipped(path):
    """A folder's images as one .zip."""
    (path / "inside").mkdir()
    folder = archives.folder(path / "inside", 12)
    files = sorted(x for x in folder.rglob("*") if x.is_file())
    archives.write_zip(
        path / "mine.zip", [(str(x.relative_to(folder)), x.read_bytes()) for x in files]
    )
    return path / "mine.zip"


# Name of the run -> config, settings of its data set, and what makes a miniature archive.
SETS = {
    "celeba": ("celeba", {}, lambda path: archives.celeba(path, 24)),
    "celeba_hq": ("celeba_hq", {"resolution": 64}, lambda path: archives.celeba_hq(path, 9)),
    "chairs3d": ("chairs3d", {}, lambda path: archives.chairs3d(path, 12)),
    "chairs3d_rgb": ("chairs3d", {"name": "chairs3d_rgb"}, lambda path: archives.chairs3d(path)),
    "cars": ("cars", {"mirror": True}, lambda path: archives.cars(path, 6)),
    "folder": ("folder", {"source": "stream"}, lambda path: archives.folder(path, 12)),
    "zip": ("folder", {}, zipped),
}


def launch(*words, environment=None):
    return subprocess.Popen(
        [sys.executable, tiny.ROOT / "launch.py", *map(str, words)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(*words):
    process = launch(*words)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_a_folder_of_images_trains(tmp_path, small):
    (tmp_path / "published").mkdir()
    folder = archives.folder(tmp_path / "published", 60)
    preparing.prepare("folder", folder, tmp_path / "data", 64, log=lambda line: None)
    changed = {"dataset_name": "folder", "dataset_dir": str(tmp_path / "data")}
    tiny.train(tmp_path / "run", train_steps=4, dataset_source="stream", **changed)
    assert (tmp_path / "run" / "report.html").exists()
    assert "upper_bound" in tiny.scores(tmp_path / "run")
    assert not any("score/factor_vae" in record for record in tiny.metrics(tmp_path / "run"))


@pytest.mark.parametrize("mirror", [False, True])
def test_both_sources_feed_the_same_images(tmp_path, mirror):
    archives.cars(tmp_path, 6)
    preparing.prepare("cars", tmp_path, tmp_path / "data", 64, log=lambda line: None)
    batches = {}
    for source in ("stream", "resident"):
        made = data.load("cars", source, tmp_path / "data", str, resolution=64, mirror=mirror)
        order = [Order(made.size, 3), Order(made.size, 4)]
        decode = jax.jit(made.decode)
        batches[source] = [
            np.asarray(decode(made.arrays, batch)) for batch in made.batches(order, 2, 8, 3, 4)
        ]
    assert batches["stream"][0].shape == (2, 3, 4, 64, 64, 3)
    np.testing.assert_array_equal(batches["stream"], batches["resident"])
    if mirror:
        images = np.asarray(made.examples(np.arange(made.size)))
        half = made.size // 2
        np.testing.assert_array_equal(images[half:], images[:half, :, ::-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_from_the_archive_to_the_report(name, tmp_path):
    config, settings, make = SETS[name]
    (tmp_path / "published").mkdir()
    settings = settings | {"dir": tmp_path / "data"}
    dataset = [f"--config.dataset.{key}={value}" for key, value in settings.items()]
    small = [f"--config.{key}={value}" for key, value in SMALL.items()]
    chosen = [f"--config=configs/{config}.py", *dataset]
    said = done("--mode=prepare", *chosen, f"--archives={make(tmp_path / 'published')}")
    assert re.search(r"\d+ images in .*, 0 skipped", said)

    train = [*chosen, *small, f"--workdir={tmp_path / 'run'}"]
    first = launch(*train)
    for line in first.stdout:
        if line.startswith("step 30/"):
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    said = done(*train)
    assert "resuming" in said and f"step {STEPS}/{STEPS}" in said

    said = done("--mode=evaluate", f"--workdir={tmp_path / 'run'}")
    assert "active_dimensions" in said
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert np.isfinite(scores["upper_bound"]["value"])
    assert "factor_vae" not in scores
    done("--mode=report", f"--workdir={tmp_path / 'run'}")
    assert (tmp_path / "run" / "report.html").exists()
    refused = launch("--mode=evaluate", f"--workdir={tmp_path / 'run'}", "--metrics=factor_vae")
    _, err = refused.communicate(timeout=300)
    assert refused.returncode == 2
    assert "has no ground-truth factors to score factor_vae by" in err
