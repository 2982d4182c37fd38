"""Checkpoints: bit-for-bit round trips, retention, and damage of every kind."""

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ibgan_jax.errors import UserError
from ibgan_jax.training.checkpoint import Checkpoints


@flax.struct.dataclass
class State:
    step: jax.Array
    key: jax.Array
    params: dict[str, Any]
    opt: dict[str, Any]
    batch_stats: dict[str, Any]


def make_state(seed=0):
    k1, k2, k3 = jax.random.split(jax.random.key(seed), 3)
    params = {
        "e": {"Dense_0": {"kernel": jax.random.normal(k1, (8, 12)), "bias": jnp.zeros(12)}},
        "g": {"w": jax.random.normal(k2, (4, 3)).astype(jnp.bfloat16)},
    }
    tx = optax.chain(optax.scale_by_rms(0.99), optax.trace(0.9), optax.scale(-1e-3))
    opt = {}
    for name, p in params.items():
        _, opt[name] = tx.update(jax.tree.map(jnp.ones_like, p), tx.init(p))
    stats = {"e": {}, "g": {"mean": jnp.float32([np.nan, -0.0, np.inf, 1e-40])}}
    return State(jnp.int32(seed), jax.random.split(k3, 4), params, opt, stats)


def bits(tree):
    def raw(x):
        data = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        return str(x.dtype), x.shape, np.asarray(data).tobytes()

    leaves, treedef = jax.tree.flatten(tree)
    return treedef, [raw(x) for x in leaves]


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A directory with the complete checkpoints 10 and 20; tests work on copies."""
    directory = tmp_path_factory.mktemp("run") / "checkpoints"
    save_all(directory, {10: None, 20: 0.5})
    return directory


def save_all(directory, scores):
    ckpts = Checkpoints(directory)
    for step, score in scores.items():
        ckpts.save(step, make_state(step), score=score, extra={"position": step})
    ckpts.close()
    return ckpts


@pytest.fixture
def directory(two_steps, tmp_path):
    return Path(shutil.copytree(two_steps, tmp_path / "checkpoints"))


def check_falls_back(directory, say="20"):
    lines = []
    state, step, extra = Checkpoints(directory).restore(make_state(), log=lines.append)
    assert (step, extra) == (10, {"position": 10})
    assert bits(state) == bits(make_state(10))
    assert len(lines) == 1 and "\n" not in lines[0]
    assert str(directory / "20") in lines[0] and say in lines[0]


def test_round_trip_bit_for_bit(directory, capfd):
    state, step, extra = Checkpoints(directory).restore(make_state())
    assert (step, extra) == (20, {"position": 20}) and bits(state) == bits(make_state(20))
    assert Checkpoints(directory).restore(make_state(), step=10)[1] == 10
    save_all(directory, {30: None})
    assert capfd.readouterr() == ("", "")


def test_manifest_is_what_sha256sum_reads(two_steps):
    step = two_steps / "20"
    listed = dict(line.split("  ")[::-1] for line in (step / "SHA256SUMS").read_text().splitlines())
    files = {p.relative_to(step).as_posix(): p.read_bytes() for p in files_of(step)}
    del files["SHA256SUMS"]
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_donated_state_is_saved_as_it_was(tmp_path):
    ckpts, big = Checkpoints(tmp_path), {"x": jnp.arange(3_000_000, dtype=jnp.float32)}
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: -x - 1, s), donate_argnums=0)
    ckpts.save(1, big, score=None)
    big = jax.block_until_ready(overwrite(overwrite(overwrite(big))))
    state, _, _ = ckpts.restore(big)
    np.testing.assert_array_equal(state["x"], np.arange(3_000_000, dtype=np.float32))
    ckpts.close()


@pytest.mark.parametrize(
    ("scores", "kept", "best"),
    [
        ({1: 0.9, 2: 0.1, 3: 0.2, 4: 0.3, 5: 0.4}, [1, 4, 5], 1),
        ({1: 0.1, 2: 0.9, 3: float("nan"), 4: None, 5: float("inf")}, [2, 4, 5], 2),
        ({1: None, 2: float("nan"), 3: None}, [2, 3], None),
        ({1: 0.5, 2: 0.1, 3: 0.5, 4: 0.1, 5: 0.1}, [1, 4, 5], 1),
    ],
)
def test_retention_keeps_newest_two_and_best(tmp_path, scores, kept, best):
    save_all(tmp_path, {step: score for step, score in scores.items() if step < 3})
    ckpts = save_all(tmp_path, {step: score for step, score in scores.items() if step >= 3})
    assert ckpts.steps() == kept and ckpts.best() == best
    assert sorted(p.name for p in tmp_path.iterdir()) == [str(s) for s in kept]


def files_of(directory):
    return sorted(p for p in directory.rglob("*") if p.is_file())


def test_one_flipped_bit_is_recognised_in_every_file(two_steps, tmp_path):
    rng, names = random.Random(0), files_of(two_steps / "20") * 2
    assert len(names) >= 20
    for number, original in enumerate(names):
        directory = Path(shutil.copytree(two_steps, tmp_path / str(number)))
        name = original.relative_to(two_steps).as_posix()
        content = bytearray(original.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        (directory / name).write_bytes(content)
        check_falls_back(directory, "" if name.endswith("SHA256SUMS") else name.removeprefix("20/"))
        assert (directory / "damaged-20").is_dir() and Checkpoints(directory).steps() == [10]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def add(path):
    path.with_name("more").write_bytes(b"")


@pytest.mark.parametrize("harm", [truncate, Path.unlink, add])
@pytest.mark.parametrize(
    "name", ["state/manifest.ocdbt", "_CHECKPOINT_METADATA", "record/metadata"]
)
def test_truncated_missing_and_added_files(directory, harm, name):
    harm(directory / "20" / name)
    check_falls_back(directory, str(Path(name).with_name("more")) if harm is add else name)


def test_damaged_step_can_be_saved_again(directory):
    ckpts = Checkpoints(directory)
    ckpts.save(30, make_state(30), score=None)
    ckpts.wait()
    truncate(directory / "30" / "state" / "_METADATA")
    assert ckpts.restore(make_state(), log=lambda line: None)[1] == 20
    ckpts.save(30, make_state(31), score=0.1)
    state, step, _ = ckpts.restore(make_state())
    assert step == 30 and bits(state) == bits(make_state(31))
    ckpts.close()


def test_step_without_manifest_and_leftovers_are_skipped(directory):
    (directory / "20" / "SHA256SUMS").unlink()
    shutil.copytree(directory / "20", directory / "30.orbax-checkpoint-tmp")
    check_falls_back(directory, "interrupted")
    assert (directory / "20").is_dir()  # reading leaves it alone
    assert save_all(directory, {20: None, 30: None, 40: None}).steps() == [30, 40]
    assert sorted(p.name for p in directory.iterdir()) == ["30", "40", "interrupted-20"]


def test_only_an_interrupted_save_is_no_checkpoint(directory, tmp_path):
    assert Checkpoints(tmp_path / "none").restore(make_state()) is None
    assert not (tmp_path / "none").exists()
    for step in ("10", "20"):
        (directory / step / "SHA256SUMS").unlink()
    assert Checkpoints(directory).restore(make_state(), log=lambda line: None) is None


def one_line_error(ckpts, **kwargs):
    with pytest.raises(UserError) as caught:
        ckpts.restore(**{"template": make_state()} | kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_all_damaged_is_an_error_every_time(directory):
    for step in ("10", "20"):
        truncate(directory / step / "state" / "_METADATA")
    for _ in range(2):
        message = one_line_error(Checkpoints(directory))
        assert f"every checkpoint in {directory}" in message and "state/_METADATA" in message


def test_explicit_step(directory):
    ckpts = Checkpoints(directory)
    assert ckpts.restore(make_state(), step=10)[1] == 10
    assert "10, 20" in one_line_error(ckpts, step=15)
    truncate(directory / "20" / "state" / "_METADATA")
    assert "state/_METADATA" in one_line_error(ckpts, step=20)
    with pytest.raises(UserError, match="precedes"):
        ckpts.save(5, make_state(5), score=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"new": jnp.zeros(3)}},
        {"batch_stats": {"e": {}, "g": {"mean": jnp.zeros(5)}}},
        {"batch_stats": {"g": {"mean": jnp.zeros(4)}}},
        {"step": jnp.float32(0)},
        {"key": jax.random.split(jax.random.key(0, impl="rbg"), 4)},
    ],
)
def test_other_structure_shape_or_dtype_is_the_users_error(two_steps, changes):
    message = one_line_error(Checkpoints(two_steps), template=make_state().replace(**changes))
    assert "does not fit" in message and next(iter(changes)) in message
    assert Checkpoints(two_steps).steps() == [10, 20]


@pytest.mark.parametrize("abstract", [False, True])
def test_restores_onto_another_sharding(two_steps, abstract):
    mesh = jax.make_mesh((2, 2), ("population", "data"), axis_types=(AxisType.Auto,) * 2)

    def place(x):
        axes = ("population",) if x.ndim and x.shape[0] % 2 == 0 else ()
        x = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) if abstract else x

    template = jax.tree.map(place, make_state())
    state, _, _ = Checkpoints(two_steps).restore(template)
    assert bits(state) == bits(make_state(20))
    for x, t in zip(jax.tree.leaves(state), jax.tree.leaves(template), strict=True):
        assert x.sharding.is_equivalent_to(t.sharding, x.ndim)


SAVE_FOREVER = """
import sys
import jax.numpy as jnp
from pathlib import Path
from ibgan_jax.training.checkpoint import Checkpoints

ckpts = Checkpoints(Path(sys.argv[1]))
state, step = {"x": jnp.zeros(200_000)}, 0
if (found := ckpts.restore(state)) is not None:
    state, step, _ = found
while True:
    step += 1
    ckpts.save(step, {"x": jnp.full(200_000, step, jnp.float32)}, score=-step)
"""


def test_kill_while_saving_leaves_something_to_restore(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)]
    rng, before, root = random.Random(1), 0, Path(__file__).parents[1]
    for _ in range(3):
        with subprocess.Popen(command, env=environment, cwd=root) as worker:
            while not (steps := Checkpoints(tmp_path).steps()) or steps[-1] < before + 3:
                assert worker.poll() is None
                time.sleep(0.01)
            time.sleep(rng.random() * 0.1)
            worker.send_signal(signal.SIGKILL)
        lines = []
        state, step, _ = Checkpoints(tmp_path).restore({"x": jnp.zeros(200_000)}, log=lines.append)
        assert step > before and not any("damaged" in line for line in lines)
        np.testing.assert_array_equal(state["x"], np.float32(step))
        before = step


def test_failed_save_is_raised_and_orbax_stays_quiet(tmp_path, monkeypatch, capfd):
    def fail(directory):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ibgan_jax.training.manifest.write", fail)
    ckpts = Checkpoints(tmp_path)
    ckpts.save(1, {"x": jnp.zeros(3)}, score=None)
    with pytest.raises(OSError, match="No space"):
        ckpts.wait()
    ckpts.close()
    assert capfd.readouterr() == ("", "")
