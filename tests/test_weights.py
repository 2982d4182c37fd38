"""weights.npz: scored and reported elsewhere as what it holds, refused when it is not whole."""

import importlib
import io

import jax
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

import launch
from ibgan_jax import metrics, models
from ibgan_jax.errors import UserError
from ibgan_jax.training import evaluation, loop, trained, weights
from ibgan_jax.training.run import build, template
from ibgan_jax.training.workdir import Workdir

SMALL = {"generator_width": 2, "discriminator_width": 2, "shared_front": True}


def quiet(line):
    pass


def variables(path):
    """(model, variables) of a run's newest checkpoint."""
    workdir = Workdir(path)
    model, shapes = template(ConfigDict(workdir.must_exist()["config"]))
    return model, trained.checkpointed(shapes, workdir, None, print).variables


def said(capsys, *arguments):
    """The line that launch.py refuses the arguments with."""
    assert launch.main(["launch.py", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


def test_scores_elsewhere_are_those_of_the_rounded_weights(finished, unpacked, small):
    assert launch.main(["launch.py", "--mode=evaluate", f"--pretrained={unpacked}"]) == 0
    scores = tiny.scores(unpacked)
    model, exact = variables(finished)
    read = weights.names(model)
    rounded = jax.tree_util.tree_map_with_path(
        lambda path, x: x.astype(np.float16).astype(np.float32) if name_of(path) in read else x,
        exact,
    )
    run = build(tiny.config(), log=quiet)
    again = metrics.evaluate_all(
        evaluation.encoder(run, rounded),
        run.dataset,
        jax.random.key(evaluation.EVALUATION_KEY),
        evaluation.METRICS,
    )
    for name, score in again.items():
        assert scores[name]["value"] == score.value
    step = trained.Trained(rounded, 24)
    bounds = evaluation.bounds(run, step, evaluation.EVALUATION_KEY)
    assert {name: scores[name]["value"] for name in bounds} == bounds
    assert scores["run"]["weights"] == weights.record(unpacked / "weights.npz")["sha256"]
    assert "weights" not in tiny.scores(finished)["run"]


def name_of(path):
    return "/".join(part.key for part in path)


def test_a_report_needs_no_scoring(finished, unpacked, small, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", None)
    assert launch.main(["launch.py", "--mode=report", f"--pretrained={unpacked}"]) == 0
    page = (unpacked / "report.html").read_text()
    assert "rounded to float16; the scores are of the weights before that" in page
    assert tiny.scores(unpacked) == tiny.scores(finished)


def test_steps_that_are_not_the_weights(unpacked, small, capsys):
    for mode in ("evaluate", "report"):
        line = said(capsys, f"--mode={mode}", f"--pretrained={unpacked}", "--step=18")
        assert f"no checkpoint 18 in {unpacked}/weights.npz; there are: [24]" in line


def test_weights_are_not_trained_on(unpacked, small, capsys):
    line = said(capsys, *tiny.command(unpacked, train_steps=48))
    assert "weights.npz alone, without the optimizers' state" in line
    given = f"--config={tiny.CONFIG}"
    assert "cannot be trained on" in said(capsys, given, f"--pretrained={unpacked}")
    both = (f"--workdir={unpacked}", f"--pretrained={unpacked}")
    assert "name the same thing" in said(capsys, "--mode=report", *both)
    assert not (unpacked / "checkpoints").exists()


def test_a_tf32_run_is_scored_on_a_cpu_and_not_trained_there(small, tmp_path):
    made = tiny.config(train_precision="tf32")
    build(made, log=quiet)
    with pytest.raises(UserError, match=r"train\.precision=tf32"):
        loop.train(made, Workdir(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "network", "left_out"),
    [
        ("ibgan", {}, {"discriminator"}),
        ("ibgan", {"shared_front": True}, {"discriminator/params/head"}),
        ("infogan", {}, {"discriminator"}),
        ("vae", {}, set()),
        ("factor_vae", {"discriminator_hidden": (8, 8)}, {"discriminator"}),
    ],
)
def test_weights_are_what_is_read_and_nothing_else(model, network, left_out):
    gan = model in ("ibgan", "infogan")
    small_network = {"generator_width": 2, "discriminator_width": 2} if gan else {}
    system = models.get(model, **network, **small_network)
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    every = {name_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)}
    missing = every - set(weights.names(system))
    for place in left_out:
        assert any(name.startswith(place) for name in missing)
    # Batch statistics go with the parameters that they belong to.
    places = {place.replace("/params/", "/batch_stats/") for place in left_out} | left_out
    assert all(any(name.startswith(place) for place in places) for name in missing)

    # Whoever read an array that is missing would find None in its place.
    part = jax.tree_util.tree_map_with_path(
        lambda path, x: None if name_of(path) in missing else x, shapes
    )
    images = jax.ShapeDtypeStruct((2, *system.image_shape), np.float32)
    codes = jax.ShapeDtypeStruct((2, system.code_dim), np.float32)
    key, hparams = jax.random.key(0), system.schedule(system.hparams, 0)
    jax.eval_shape(system.represent, part, images)
    jax.eval_shape(system.generate, part, codes)
    jax.eval_shape(system.bounds, part, key, images, hparams)
    if hasattr(system, "posterior"):
        jax.eval_shape(system.posterior, part, images)


def drawn(system):
    """Variables of a model, drawn by NumPy, which compiles nothing."""
    shapes, random = jax.eval_shape(system.init, jax.random.key(0)), np.random.default_rng(0)
    return jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype), shapes)


def test_numbers_that_float16_cannot_hold_stay_float32():
    system = models.get("vae")
    made = drawn(system)
    dense = made["encoder"]["params"]["Dense_0"]
    large = dense["kernel"] = dense["kernel"] * np.float32(1e7)
    small = dense["bias"] = np.full_like(dense["bias"], 3e-8)
    content = weights.pack(system, made, 7, {"model": "vae"})
    with np.load(io.BytesIO(content)) as file:
        kinds = {name: file[name].dtype for name in file.files if name != weights.RECORD}
        assert {name for name, kind in kinds.items() if kind == np.float32} == {
            "encoder/params/Dense_0/kernel",
            "encoder/params/Dense_0/bias",
        }
        assert set(kinds.values()) == {np.dtype(np.float16), np.dtype(np.float32)}
        np.testing.assert_array_equal(file["encoder/params/Dense_0/kernel"], large)
        np.testing.assert_array_equal(file["encoder/params/Dense_0/bias"], small)
    dense["kernel"] = large * np.inf
    with pytest.raises(UserError, match="Dense_0/kernel holds a number that is not finite"):
        weights.pack(system, made, 7, {})


def leaf(tree, path):
    for part in path:
        tree = tree[part.key]
    return tree


@pytest.mark.parametrize(("model", "network"), [("ibgan", SMALL), ("vae", {})])
def test_what_comes_back_is_what_was_packed(tmp_path, model, network):
    system = models.get(model, **network)
    made = drawn(system)
    path = tmp_path / "weights.npz"
    path.write_bytes(weights.pack(system, made, 7, {"seed": 3}))
    assert weights.record(path)["step"] == 7
    back = weights.unpack(path, system)
    source = {"ibgan": "generator", "vae": "decoder"}[model]
    assert jax.tree.structure(back[source]) == jax.tree.structure(made[source])
    for where, x in jax.tree_util.tree_leaves_with_path(back):
        exact = np.asarray(leaf(made, where))
        assert x.dtype == np.float32
        assert np.max(np.abs(x - exact)) <= 2**-11 * np.max(np.abs(exact))


# A place by its part of the file, and -22, where the record begins that ends a zip file.
@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.9, -22])
def test_damaged_weights(unpacked, small, capsys, place):
    path = unpacked / "weights.npz"
    content = bytearray(path.read_bytes())
    whole = bytes(content)
    at = int(place * len(content)) if place > 0 else len(content) + place
    content[at] ^= 4
    for damaged in (content, whole[:at], whole[:-1], b"", b"PK\x03\x04 no archive"):
        path.write_bytes(damaged)
        line = said(capsys, "--mode=evaluate", f"--pretrained={unpacked}")
        assert f"{path} is damaged or no weights.npz" in line


def test_weights_that_would_run_code_are_not_loaded(unpacked, small, capsys):
    class Hostile:
        def __reduce__(self):
            return pytest.fail, ("code was run",)

    np.savez(unpacked / "weights.npz", record=np.array([Hostile()], object))
    line = said(capsys, "--mode=evaluate", f"--pretrained={unpacked}")
    assert "is damaged or no weights.npz" in line


def test_weights_of_another_run(unpacked, small, capsys):
    workdir = Workdir(unpacked)
    record = workdir.recorded()
    infogan = importlib.import_module("configs.quickstart").get_config("infogan")
    for config, line in (
        (tiny.config(seed=5), "seed (there 0, now 5)"),
        (infogan, "model (there 'ibgan', now 'infogan')"),
    ):
        workdir.write_json(workdir.config, {**record, "config": config.to_dict()})
        error = said(capsys, "--mode=report", f"--pretrained={unpacked}")
        assert f"{unpacked}/weights.npz holds a run of another configuration: " in error
        assert line in error


def test_weights_that_do_not_fit_the_model(tmp_path):
    path = tmp_path / "weights.npz"
    wide, narrow = (models.get("ibgan", generator_width=w, discriminator_width=2) for w in (4, 2))
    path.write_bytes(weights.pack(wide, drawn(wide), 7, {}))
    with pytest.raises(UserError, match=r"holds another model: generator/.* in the model of its"):
        weights.unpack(path, narrow)
