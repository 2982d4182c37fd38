"""The factor classifier: it learns, its files come back, and what is wrong is said in one line."""

import dataclasses
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ibgan_jax import data
from ibgan_jax.errors import UserError
from ibgan_jax.metrics import factor_classifier
from ibgan_jax.metrics.factor_classifier import Settings, load, main, save, train
from ibgan_jax.metrics.fid import fid
from ibgan_jax.networks.factor_net import FactorNet

NAMES = ("shape", "scale", "orientation", "x", "y")
QUICK = Settings(steps=120, batch_size=16, learning_rate=2e-3, seed=1)


@pytest.fixture(scope="module")
def dataset():
    """The small data set, which notes the examples that are asked for."""
    made = tiny.load("dsprites", "resident", "unused")
    made.asked, lookup = [], made.lookup
    made.lookup = lambda indices: made.asked.append(np.unique(indices)) or lookup(indices)
    return made


@pytest.fixture(scope="module")
def trained(dataset):
    """(parameters, record, lines of progress, the examples of each dispatch, then those judged)."""
    lines = []
    return *train(dataset, QUICK, lines.append), lines, list(dataset.asked)


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "factor-net"
    return path, save(path, *trained[:2])


def test_it_learns_the_factors(trained):
    """On images that it never saw: chance is 0.42, and orientations are only 9 degrees apart."""
    accuracy = trained[1]["accuracy"]
    assert tuple(accuracy) == NAMES
    assert np.mean([accuracy[name] for name in ("shape", "scale", "x", "y")]) > 0.75
    assert trained[1]["loss"] < 0.7 * sum(np.log(tiny.FACTOR_SIZES))


def test_held_out_images_are_never_shown(trained):
    *shown, judged = trained[3]
    assert len(np.unique(np.concatenate(shown))) == 162
    assert len(judged) == trained[1]["held_out"] == 18
    assert not np.intersect1d(judged, np.concatenate(shown)).size


def test_the_loss_of_uniform_heads_is_their_entropies():
    heads = tuple(jnp.full((4, size), 7.0) for size in (3, 5))
    found = factor_classifier.cross_entropy(heads, jnp.zeros((4, 2), int))
    np.testing.assert_allclose(found, np.full(4, np.log(15)), rtol=1e-6)
    certain = tuple(100.0 * jax.nn.one_hot(jnp.array([1, 2]), size) for size in (3, 5))
    found = factor_classifier.cross_entropy(certain, jnp.array([[1, 2], [1, 2]]))
    np.testing.assert_allclose(found, [100.0, 100.0])


def test_progress_is_said(trained):
    steps = [line.split()[1] for line in trained[2]]
    assert steps == ["50/120", "100/120", "120/120"]
    assert all("loss" in line and "s left" in line for line in trained[2])


def test_features_come_back(saved, trained, dataset):
    path, record = saved
    features_of, loaded = load(path)
    assert loaded == {"protocol": "factor_net", **record}
    assert loaded["settings"] == dataclasses.asdict(QUICK)
    assert loaded["dataset"] == "dsprites"
    assert loaded["sha256"] == hashlib.sha256((path / "weights.npz").read_bytes()).hexdigest()
    images = dataset.images(dataset.factors_of([0, 50, 179]))
    wanted, _ = FactorNet(tiny.FACTOR_SIZES).apply(trained[0], images)
    np.testing.assert_allclose(features_of(images), wanted, rtol=1e-4, atol=1e-5)
    assert wanted.shape == (3, 128)
    assert wanted.min() >= 0 < wanted.std()


def test_fid_tells_the_data_from_noise(saved, dataset):
    features_of, record = load(saved[0])

    def noise(key, count):
        return jnp.sign(jax.random.normal(key, (count, 64, 64, 1)))

    def itself(key, count):
        indices = jax.random.randint(key, (count,), 0, dataset.size)
        return dataset.images(dataset.factors_of(indices))

    near, far = (
        fid(features_of, dataset, g, jax.random.key(0), 100, 5, record=record)
        for g in (itself, noise)
    )
    assert far.interval[0] > 5 * near.interval[1]
    assert near.settings["classifier"]["accuracy"] == record["accuracy"]


def test_images_of_another_shape(saved):
    with pytest.raises(UserError, match=r"images \(64, 64, 1\); got \(64, 64, 3\)"):
        load(saved[0])[0](np.zeros((2, 64, 64, 3)))


def damage(path, how):
    weights, record = path / "weights.npz", path / "record.json"
    content = json.loads(record.read_text())
    if how == "flipped bit":
        packed = bytearray(weights.read_bytes())
        packed[len(packed) // 2] ^= 1
        weights.write_bytes(packed)
    elif how == "no archive":
        weights.write_bytes(b"PK")
        content["sha256"] = hashlib.sha256(b"PK").hexdigest()
        record.write_text(json.dumps(content))
    elif how == "other network":
        record.write_text(json.dumps(content | {"width": 64}))
    elif how == "no JSON":
        record.write_text("{")
    elif how == "lacks a key":
        del content["sha256"]
        record.write_text(json.dumps(content))
    else:
        (path / how).unlink()


HARM = ("flipped bit", "no archive", "other network", "no JSON", "lacks a key")


@pytest.mark.parametrize("how", [*HARM, "weights.npz", "record.json"])
def test_files_that_are_damaged_or_missing(saved, trained, tmp_path, how):
    path = tmp_path / "copy"
    save(path, *trained[:2])
    damage(path, how)
    with pytest.raises(UserError, match="is damaged" if how in HARM else f"{how} is missing") as e:
        load(path)
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value)


def test_what_is_there_is_not_overwritten(saved, trained, capsys):
    before = (saved[0] / "weights.npz").read_bytes()
    with pytest.raises(UserError, match="already holds"):
        save(saved[0], *trained[:2])
    assert main([f"--out={saved[0]}"]) == 2
    assert "already holds" in capsys.readouterr().err
    assert (saved[0] / "weights.npz").read_bytes() == before


def test_the_command(monkeypatch, trained, tmp_path):
    """Its own way from the arguments to the files; the training is tested above."""
    given = {}

    def train(dataset, settings, log):
        given.update(name=dataset.name, settings=settings)
        return trained[:2]

    monkeypatch.setattr(data, "load", tiny.load)
    monkeypatch.setattr(factor_classifier, "train", train)
    lines, out = [], tmp_path / "results" / "net"
    arguments = [f"--out={out}", "--dataset=color_dsprites", "--steps=7", "--learning_rate=0.01"]
    assert main([*arguments, "--batch_size=3"], lines.append) == 0
    assert given == {"name": "color_dsprites", "settings": Settings(7, 3, 0.01, 0)}
    assert load(out)[1]["accuracy"] == trained[1]["accuracy"]
    assert "held-out images: shape 0." in lines[-1] or "shape 1." in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out"),
        (["--steps=0"], "steps=0"),
        (["--steps=many"], "--steps"),
        (["--learning_rate=nan"], "learning_rate=nan"),
        (["--dataset=mnist"], "color_dsprites"),
        (["--source=web"], "resident"),
        (["--unknown=1"], "--unknown"),
    ],
)
def test_mistakes_are_one_line_and_status_2(arguments, message, tmp_path, capsys):
    out = [f"--out={tmp_path}/net"] if arguments else []
    assert main([*out, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "net").exists()


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([f"--out={tmp_path}/file/net"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_loss_that_is_not_finite(monkeypatch, dataset):
    def dispatch(state, arrays, batches, labels):
        return state, np.array([1.0, np.nan])

    monkeypatch.setattr(factor_classifier, "_make_dispatch", lambda *_: dispatch)
    with pytest.raises(UserError, match="by step 50; try a smaller learning_rate"):
        train(dataset, QUICK, lambda line: None)
