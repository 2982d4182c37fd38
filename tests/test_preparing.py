"""Preparing sets of images: what is refused, full disks, and what is there already."""

import errno
import os
import resource
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import archives as miniature
import numpy as np
import pytest
from preparation import files_of, quiet

from ibgan_jax.data import converting, image_parts, image_sets, image_writing, preparing
from ibgan_jax.data.image_records import open_images
from ibgan_jax.data.preparing import prepare
from ibgan_jax.errors import UserError

pytest.importorskip("tensorflow_datasets")


def hundred(tmp_path, unreadable):
    good = miniature.encoded(miniature.picture(0, 20, 20))
    files = [(f"{n:03d}.png", b"junk" if n < unreadable else good) for n in range(200)]
    return miniature.write_zip(tmp_path / "a.zip", files)


def test_one_percent_may_be_unreadable(tmp_path):
    lines = []
    result = prepare("folder", hundred(tmp_path, 2), tmp_path / "data", 16, lines.append, workers=1)
    assert (result.written, result.skipped, result.names) == (198, 2, ("000.png", "001.png"))
    assert lines[-1].endswith("2 skipped as unreadable (000.png, 001.png)")
    assert len(open_images("folder", tmp_path / "data", 16)) == 198


def test_more_stops_it(tmp_path):
    path = hundred(tmp_path, 3)
    with pytest.raises(UserError, match=r"3 of 200 images .*more than 1 %: 000.png \(cannot ident"):
        prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
    assert not list((tmp_path / "data").rglob("part-*"))


def test_hopeless_sources_are_given_up_early(tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "_HOPELESS", 10)
    with pytest.raises(UserError, match="10 of 10 images"):
        prepare("folder", hundred(tmp_path, 200), tmp_path / "data", 16, quiet, workers=1)


def test_prepared_already(tmp_path):
    path = hundred(tmp_path, 1)
    first = prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
    before = files_of(tmp_path / "data")
    os.utime(path, (1, 1))  # copied since
    lines = []
    assert prepare("folder", path, tmp_path / "data", 16, lines.append, workers=1) == first
    assert lines[0].startswith("already prepared: 199 images")
    hundred(tmp_path, 2)
    with pytest.raises(UserError, match=r"from another source.*--config.dataset.dir"):
        prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
    assert files_of(tmp_path / "data") == before


def test_two_at_once(tmp_path, monkeypatch):
    path = hundred(tmp_path, 0)
    messages = []

    def write(*arguments):
        with pytest.raises(UserError, match="another process is preparing"):
            prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
        messages.append("kept out")
        image_writing.write(*arguments)

    monkeypatch.setattr(preparing, "write", write)
    prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
    assert messages == ["kept out"]


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    path = hundred(tmp_path, 0)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    for owner, name in ((image_parts, "_write"), (image_parts.Parts, "read")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(UserError, match=r"No space left.*--config.dataset.dir=DIR"):
                prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)
        with pytest.raises(UserError, match="not prepared"):
            open_images("folder", tmp_path / "data", 16)
    assert prepare("folder", path, tmp_path / "data", 16, quiet, workers=1).written == 200


@pytest.mark.usefixtures("few")
def test_files_that_cannot_grow(tmp_path):
    """ArrayRecord reports this in its own way: the parts fit, the file made of them does not."""
    random = np.random.default_rng(0)
    noise = [random.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(12)]
    files = [(f"{n:02d}.png", miniature.encoded(pixels)) for n, pixels in enumerate(noise)]
    path = miniature.write_zip(tmp_path / "a.zip", files)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written .*File too large"):
            prepare("folder", path, tmp_path / "data", 64, quiet, workers=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(UserError, match="not prepared"):
        open_images("folder", tmp_path / "data", 64)
    lines = []
    prepare("folder", path, tmp_path / "data", 64, lines.append, workers=1)
    assert lines[0].startswith("going on after 12 images")
    images = open_images("folder", tmp_path / "data", 64).read(list(range(12)))
    np.testing.assert_array_equal(images, np.stack(noise).reshape(12, -1))


def test_a_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not a directory"):
        prepare("folder", hundred(tmp_path, 0), tmp_path / "file" / "data", 16, quiet, workers=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("celeba", r"no img_align_celeba.zip.*1,443,490,838 bytes.*mmlab.ie.cuhk.edu.hk"),
        ("celeba_hq", r"no images of the set celeba_hq.*PNG or .npy.*progressive_growing_of_gans"),
        ("chairs3d", r"no rendered_chairs.tar.*di.ens.fr"),
        ("chairs3d_rgb", r"no rendered_chairs.tar.*di.ens.fr"),
        ("cars", r"no cars_train.tgz.*979,269,282 bytes.*car_devkit.tgz \(330,960 bytes"),
        ("folder", r"no images of the set folder.*a folder, .zip"),
    ],
)
def test_missing_files_are_named(tmp_path, name, expected):
    (tmp_path / "empty").mkdir()
    for path, wanted in ((tmp_path / "none", "no file or folder"), (tmp_path / "empty", expected)):
        with pytest.raises(UserError, match=wanted) as caught:
            prepare(name, path, tmp_path / "data", image_sets.IMAGE_SETS[name].resolutions[0])
        assert "\n" not in str(caught.value)


def test_wrong_files_are_named(tmp_path):
    path = miniature.celeba(tmp_path, 2)
    attributes = path / "list_attr_celeba.txt"
    right = attributes.read_text()
    for wrong in ("", "2\n", "image_id,Male\n000001.jpg,1\n", right.replace(" 1 ", " 7 ", 1)):
        attributes.write_text(wrong)
        with pytest.raises(UserError, match=r"list_attr_celeba.txt is not as published"):
            prepare("celeba", path, tmp_path / "data", 64, quiet, workers=1)
    attributes.write_text(right.replace("000002.jpg", "000003.jpg"))
    with pytest.raises(UserError, match=r"says nothing of 000002.jpg"):
        prepare("celeba", path, tmp_path / "data", 64, quiet, workers=1)
    attributes.write_text(right)
    for content in (b"<html>", (path / "img_align_celeba.zip").read_bytes()[:-30]):
        (tmp_path / "wrong.zip").write_bytes(content)
        with pytest.raises(UserError, match=r"wrong.zip.*img_align_celeba.zip \(1,443,490,838 by"):
            prepare("celeba", tmp_path / "wrong.zip", tmp_path / "data", 64, quiet, workers=1)
    pixels = miniature.encoded(miniature.picture(0, 100, 100), "JPEG")
    miniature.write_zip(path / "img_align_celeba.zip", [("img_align_celeba/000001.jpg", pixels)])
    with pytest.raises(UserError, match=r"100 x 100 pixels where at least 160 x 160"):
        prepare("celeba", path, tmp_path / "data", 64, quiet, workers=1)
    miniature.cars(tmp_path, 2)
    miniature.write_tar(tmp_path / "car_devkit.tgz", [("devkit/cars_train_annos.mat", b"x")])
    with pytest.raises(UserError, match=r"holds no devkit/cars_test_annos.mat"):
        prepare("cars", path, tmp_path / "data", 64, quiet, workers=1)
    both = [(f"devkit/cars_{part}_annos.mat", b"x" * 200) for part in ("train", "test")]
    miniature.write_tar(tmp_path / "car_devkit.tgz", both)
    with pytest.raises(UserError, match=r"boxes of cars_train are not as published"):
        prepare("cars", path, tmp_path / "data", 64, quiet, workers=1)


def test_names_and_numbers_are_checked_first(tmp_path):
    for name, resolution, workers, wanted in [
        ("celebb", 64, 1, "one of celeba, celeba_hq, chairs3d, chairs3d_rgb, cars, folder"),
        ("celeba", 65, 1, "one of 64, 128, 256"),
        ("folder", 64, 0, "workers must be at least 1"),
    ]:
        with pytest.raises(UserError, match=wanted):
            prepare(name, tmp_path, tmp_path / "data", resolution, quiet, workers)
    assert not (tmp_path / "data").exists()


def test_a_name_twice(tmp_path):
    image = miniature.encoded(miniature.picture(0, 20, 20))
    path = miniature.write_tar(tmp_path / "a.tar", [("a.png", image), ("./a.png", image)])
    with pytest.raises(UserError, match=r"a.png again"):
        prepare("folder", path, tmp_path / "data", 16, quiet, workers=1)


def test_progress_without_a_terminal(tmp_path, capsys):
    lines = []
    prepare("folder", hundred(tmp_path, 2), tmp_path / "data", 16, lines.append, workers=1)
    tenths = [line for line in lines if "% of the archives" in line]
    assert tenths[0] == "10 % of the archives read: 20 images, 2 skipped"
    assert tenths[-1] == "100 % of the archives read: 200 images, 2 skipped"
    assert len(tenths) == 10
    assert capsys.readouterr().out == ""


def test_importing_the_registry_is_cheap():
    code = "import sys; from ibgan_jax.data import image_sets; print(*sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    ).stdout.split()
    assert not {"PIL", "tensorflow_datasets", "scipy.io", "array_record"} & set(found)


def test_a_process_that_dies(tmp_path, monkeypatch):
    class Pool:
        def __init__(self, *arguments, **options):
            pass

        def submit(self, *arguments):
            future = Future()
            future.set_exception(BrokenProcessPool("died"))
            return future

        def shutdown(self, **options):
            pass

    monkeypatch.setattr(converting, "ProcessPoolExecutor", Pool)
    with pytest.raises(UserError, match=r"a process died.*000.png"):
        prepare("folder", hundred(tmp_path, 0), tmp_path / "data", 16, quiet, workers=2)
