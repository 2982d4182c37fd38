"""Preparing that is struck or has no room: done again, it ends with the same images."""

import contextlib
import random
import time
from pathlib import Path

import archives as miniature
import pytest
import struck
import test_faults
import test_faults_around
import test_prepare_interrupted
import test_preparing
import tiny

from ibgan_jax.data import image_records
from ibgan_jax.data.image_records import open_images
from ibgan_jax.data.preparing import prepare
from ibgan_jax.errors import UserError

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """(zip of 200 images, `contents` of what is prepared of it)."""
    folder = tmp_path_factory.mktemp("photographs")
    pictures = [miniature.picture(number, 80, 80) for number in range(200)]
    files = [(f"{n:03d}.png", miniature.encoded(pixels)) for n, pixels in enumerate(pictures)]
    path = miniature.write_zip(folder / "a.zip", files)
    prepare("folder", path, folder / "data", 64, test_preparing.quiet, workers=1)
    return path, contents(folder / "data")


def contents(data):
    """The images as bytes, and what is noted of them: of the files, all but the order of fields."""
    reader = open_images("folder", data, 64)
    noted = image_records.read_metadata(data / "images/folder-64/1.0.0")
    return reader.read(list(range(len(reader)))).tobytes(), noted


def preparing(archives, data):
    config = f"--config={tiny.ROOT}/configs/folder.py"
    data = f"--config.dataset.dir={data}"
    return ["--mode=prepare", config, data, f"--archives={archives}"]


@pytest.fixture(scope="module")
def whole_preparation(photographs, compiled, tmp_path_factory):
    """(seconds, file operations) of preparing in peace."""
    data = tmp_path_factory.mktemp("whole") / "data"
    found = struck.whole(preparing(photographs[0], data), compiled, data)
    assert contents(data) == photographs[1]
    return found


def descendants(pid):
    """Who has been started by the process `pid`, in turn too."""
    started = Path(f"/proc/{pid}/task").glob("*/children")
    with contextlib.suppress(OSError):
        own = [int(child) for file in started for child in file.read_text().split()]
        return own + [further for child in own for further in descendants(child)]
    return []


def check_prepared_again(photographs, data, workers):
    limit = time.monotonic() + 20
    while any(test_prepare_interrupted.alive(pid) for pid in workers):
        assert time.monotonic() < limit, "workers outlive their parent"
        time.sleep(0.05)
    prepare("folder", photographs[0], data, 64, test_preparing.quiet, workers=1)
    assert contents(data) == photographs[1]
    assert {path.name for path in data.glob("images/*/*")} == {".lock", "1.0.0"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize("kind", test_faults.KINDS)
def test_preparing_struck_at_a_moment(photographs, whole_preparation, tmp_path, compiled, kind):
    seconds = random.Random(f"preparing {kind}").uniform(0, whole_preparation[0])
    data = tmp_path / "data"
    with struck.running(preparing(photographs[0], data), compiled) as process:
        time.sleep(seconds)
        workers = descendants(process.pid)
        test_faults.check_end(kind, *struck.after(process, 0, kind))
    check_prepared_again(photographs, data, workers)


@pytest.mark.parametrize("kind", test_faults.KINDS)
def test_preparing_struck_at_an_operation(photographs, whole_preparation, tmp_path, compiled, kind):
    number = random.Random(f"preparing {kind}").randint(1, whole_preparation[1])
    data = tmp_path / "data"
    words = preparing(photographs[0], data)
    with struck.running(words, compiled, data, kind, number) as process:
        _, err = process.communicate(timeout=struck.SECONDS)
        assert process.returncode
        test_faults.check_end(kind, process.returncode, err)
    check_prepared_again(photographs, data, [])


def test_a_disk_full_at_preparing(photographs, tmp_path):
    size = random.Random("preparing").randrange(len(photographs[1][0]) // 10)
    with test_faults_around.full(size), pytest.raises(UserError) as caught:
        prepare("folder", photographs[0], tmp_path, 64, test_preparing.quiet, workers=1)
    assert "\n" not in str(caught.value) and "cannot be written (" in str(caught.value)
    check_prepared_again(photographs, tmp_path, [])
