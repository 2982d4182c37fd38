"""Preparing sets of images, interrupted at any moment."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import archives as miniature
import numpy as np
import pytest
from preparation import files_of, prepared, quiet, resized

from ibgan_jax.data import image_parts, preparing
from ibgan_jax.data.image_records import open_images
from ibgan_jax.data.preparing import prepare
from ibgan_jax.errors import UserError

pytest.importorskip("tensorflow_datasets")


class Killed(BaseException):
    pass


def killed_before_writing(*arguments):
    """Leaves all the parts behind."""

    def killed(*_):
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "write", killed)
        with pytest.raises(Killed):
            prepare(*arguments, quiet, workers=1)


@pytest.mark.parametrize("moment", ["part", "rename", "example", "last file", "removal"])
@pytest.mark.usefixtures("few")
def test_interrupted_at_any_moment(tmp_path, monkeypatch, moment):
    import tensorflow_datasets as tfds

    files = [(f"{n}.png", miniature.encoded(miniature.picture(n, 20, 20))) for n in range(8)]
    path = miniature.write_zip(tmp_path / "a.zip", files)
    prepare("folder", path, tmp_path / "whole", 16, quiet, workers=1)

    def after(function, count):
        calls = []

        def killed(*arguments, **options):
            calls.append(0)
            if len(calls) == count:
                raise Killed
            return function(*arguments, **options)

        return killed

    where = {
        "part": (image_parts.Parts, "_record", 2),
        "rename": (Path, "replace", 3),
        "example": (image_parts.Parts, "read", 5),
        "last file": (tfds.core.DatasetInfo, "write_to_directory", 1),
        "removal": (image_parts.Parts, "remove", 1),
    }
    owner, name, count = where[moment]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, after(getattr(owner, name), count))
        with pytest.raises(Killed):
            prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
    if moment != "removal":
        with pytest.raises(UserError, match="not prepared"):
            open_images("folder", tmp_path / "data", 16)
    lines = []
    prepare("folder", path, tmp_path / "data", 16, lines.append, workers=1)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path / "data" / "images" / "folder-16")) == [".lock", "1.0.0"]
    taken_up = {"part": 6, "rename": 3, "example": 8, "last file": 8}
    if moment in taken_up:
        assert lines[0] == f"going on after {taken_up[moment]} images that are already converted"


@pytest.mark.usefixtures("few")
def test_damaged_parts_are_made_anew(tmp_path):
    files = [(f"{n}.png", miniature.encoded(miniature.picture(n, 20, 20))) for n in range(8)]
    path = miniature.write_zip(tmp_path / "a.zip", files)
    prepare("folder", path, tmp_path / "whole", 16, quiet, workers=1)
    for number, damage in enumerate((7, 40, 300, -1, "cut", "settings")):
        data = tmp_path / str(number)
        killed_before_writing("folder", path, data, 16)
        work = data / "images" / "folder-16" / "preparing"
        part = work / ("settings.json" if damage == "settings" else "part-000001")
        content = bytearray(part.read_bytes())
        if damage == "cut":
            content = content[:100]
        else:
            content[5 if damage == "settings" else damage] ^= 16
        part.write_bytes(content)
        lines = []
        prepare("folder", path, data, 16, lines.append, workers=1)
        assert ("going on after 3 images" in lines[0]) == (damage != "settings")
        assert files_of(data) == files_of(tmp_path / "whole")


def test_parts_of_another_source_are_not_taken_up(tmp_path):
    path = tmp_path / "a.zip"
    for number in (0, 1):
        files = [(f"{n}.png", miniature.encoded(miniature.picture(number, 20, 20))) for n in "ab"]
        miniature.write_zip(path, files)
        if number == 0:
            killed_before_writing("folder", path, tmp_path / "data", 16)
    _, images, _ = prepared(tmp_path, "folder", path, 16)
    np.testing.assert_array_equal(images[0], resized(miniature.picture(1, 20, 20), 16))


@pytest.mark.usefixtures("few")
def test_nothing_is_kept_of_a_damaged_archive(tmp_path):
    files = [(f"{n}.bmp", miniature.encoded(miniature.picture(n, 20, 20), "BMP")) for n in range(8)]
    path = miniature.write_tar(tmp_path / "a.tgz", files, "w:gz")
    whole = path.read_bytes()
    times = path.stat().st_mtime_ns
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for content in (bytes(damaged), whole):
        path.write_bytes(content)
        os.utime(path, ns=(times, times))  # as a download has its server's
        if content != whole:
            with pytest.raises(UserError, match="damaged or cut short"):
                prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
    _, images, _ = prepared(tmp_path, "folder", path, 16)
    for number, image in enumerate(images):
        np.testing.assert_array_equal(image, resized(miniature.picture(number, 20, 20), 16))


KILLED = """
    import multiprocessing, os, sys
    from pathlib import Path
    from ibgan_jax.data import converting, image_parts, preparing

    if __name__ == "__main__":
        image_parts.PART_IMAGES = 2
        flush = image_parts.Parts.flush

        def told(parts):
            flush(parts)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            sys.stdin.readline()

        image_parts.Parts.flush = told
        preparing.prepare("folder", Path(sys.argv[1]), Path(sys.argv[2]), 16, print, workers=2)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "kind", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_killed_with_its_workers(tmp_path, kind):
    """A real signal while two processes convert: they end, and the next start goes on."""
    files = [(f"{n:02d}.png", miniature.encoded(miniature.picture(n, 20, 20))) for n in range(70)]
    path = miniature.write_zip(tmp_path / "a.zip", files)
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(KILLED))
    process = subprocess.Popen(
        [sys.executable, script, path, tmp_path / "data"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    assert all(alive(pid) for pid in workers)
    process.send_signal(kind)
    assert process.wait(30) != 0
    process.communicate()
    limit = time.monotonic() + 20
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < limit, "workers outlive their parent"
        time.sleep(0.05)
    lines = []
    prepare("folder", path, tmp_path / "data", 16, lines.append, workers=1)
    assert lines[0] == "going on after 2 images that are already converted"
    prepare("folder", path, tmp_path / "whole", 16, quiet, workers=1)
    assert files_of(tmp_path / "data") == files_of(tmp_path / "whole")
