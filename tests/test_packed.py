"""The packed set on disk: what it holds, and that no accident makes it hold anything else."""

import collections
import errno
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ibgan_jax.data import packed, sprites
from ibgan_jax.errors import UserError

SHAPE = (50, 512)
# No pixel is close enough to a border for a math library to matter: the same on every machine.
FULL_SHA256 = "7d5d3857d39f31b6fe712367187eb6da21947253626cae77fa6798caa85596ff"


def records():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def load(path, log=lambda line: None, make=records):
    return packed.load_or_make(path, SHAPE, make, "making", log)


def never():
    raise AssertionError("a valid cache was made again")


@pytest.fixture
def cached(tmp_path):
    path = tmp_path / "set.npy"
    load(path)
    return path


@pytest.fixture(scope="module")
def full(full_directory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sprites, "render_packed_all", never)
        return packed.load_packed(full_directory)


def test_the_full_set(full, full_directory):
    assert full.shape == (sprites.SIZE, 512)
    assert full.dtype == np.uint8
    assert hashlib.sha256(full).hexdigest() == FULL_SHA256
    assert sorted(path.name for path in full_directory.iterdir()) == [
        "dsprites-packed-v1.json",
        "dsprites-packed-v1.npy",
    ]


@given(st.lists(st.integers(0, sprites.SIZE - 1), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_full_set_is_the_rendered_images(full, indices):
    images = np.unpackbits(full[indices], axis=1).reshape(-1, 64, 64)
    np.testing.assert_array_equal(images, sprites.render(sprites.factors_of(indices)))


def test_progress_reaches_the_end(monkeypatch):
    monkeypatch.setattr(sprites, "_draw_group", lambda group, rows: None)
    seen = []
    sprites.render_packed_all(lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (sprites.SIZE, sprites.SIZE)


def test_kept_and_read_again(cached):
    again = load(cached, make=never)
    np.testing.assert_array_equal(again, records())
    assert not again.flags.writeable


def flip_a_byte(path):
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (flip_a_byte, "damaged"),
        (lambda path: os.truncate(path, 1000), "cannot be read"),
        (lambda path: os.truncate(path, 0), "cannot be read"),
        (lambda path: packed.note_path(path).unlink(), "no note"),
        (lambda path: packed.note_path(path).write_text("{"), "cannot be read"),
        (lambda path: packed.note_path(path).write_text('{"format_version": 0}'), "version"),
        (lambda path: np.save(path, np.zeros((3, 512), np.uint8)), "holds uint8 [3, 512]"),
    ],
)
def test_a_damaged_set_is_made_again_and_said_so(cached, damage, word):
    damage(cached)
    lines = []
    np.testing.assert_array_equal(load(cached, log=lines.append), records())
    assert sum(word in line and "making it anew" in line for line in lines) == 1
    assert not any("\n" in line for line in lines)
    load(cached, make=never)


def test_the_note_describes_the_set(cached):
    note = json.loads(packed.note_path(cached).read_text())
    assert note["shape"] == list(SHAPE)
    assert note["sha256"] == hashlib.sha256(records().tobytes()).hexdigest()


def test_a_full_disk_is_told_before_the_work(tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(packed.shutil, "disk_usage", lambda path: usage(9, 9, 5 * 10**6))
    monkeypatch.setattr(sprites, "render_packed_all", never)
    with pytest.raises(UserError, match=r"5 MB free but 395 MB .*--config\.dataset\.dir=DIR"):
        packed.load_packed(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failing_write_is_explained_and_leaves_nothing(tmp_path, monkeypatch, code):
    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(packed.os, "fsync", refuse)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "set.npy")
    assert str(tmp_path) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_grow(tmp_path):
    # The nearest thing to a full disk that needs none.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written .File too large"):
            load(tmp_path / "set.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(UserError, match=r"not a directory.*--config\.dataset\.dir=DIR"):
            load(directory / "set.npy", make=never)


def test_a_read_only_directory(cached, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    np.testing.assert_array_equal(load(cached, make=never), records())
    with pytest.raises(UserError, match="Read-only file system"):
        load(cached.with_name("other.npy"), make=never)


KILLED = """
import os, signal, sys
from pathlib import Path
from ibgan_jax.data import packed
from test_packed import load
calls = 0
sync = os.fsync
def fsync(descriptor):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
packed.os.fsync = fsync
load(Path(sys.argv[1]))
"""


# One: the images are written; two: the images are in place, the note is written; three: all is.
@pytest.mark.parametrize("moment", [1, 2, 3])
def test_killed_while_writing(tmp_path, moment):
    path = tmp_path / "set.npy"
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, path, str(moment)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    np.testing.assert_array_equal(load(path), records())
    load(path, make=never)


def test_leftovers_go_once_they_are_old(tmp_path):
    old = tmp_path / f".set.npy-{'0' * 32}.tmp"
    young = tmp_path / f".set.npy-{'1' * 32}.tmp"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    load(tmp_path / "set.npy")
    assert not old.exists()
    assert young.exists()


def make_after(barrier):
    barrier.wait()
    return records()


def load_with(path, barrier):
    assert (load(path, make=lambda: make_after(barrier)) == records()).all()


def test_two_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2, timeout=60)
    path = tmp_path / "set.npy"
    workers = [context.Process(target=load_with, args=(path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    load(path, make=never)
    assert len(list(tmp_path.iterdir())) == 2
