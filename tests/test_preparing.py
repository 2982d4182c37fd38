"""Sets of images prepared from miniature archives: pixels, order, and every interruption."""

import errno
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import archives as miniature
import numpy as np
import pytest
from PIL import Image

from ibgan_jax.data import converting, image_parts, image_sets, image_writing, preparing
from ibgan_jax.data.image_records import open_images
from ibgan_jax.data.preparing import prepare
from ibgan_jax.errors import UserError

pytest.importorskip("tensorflow_datasets")


def quiet(line):
    del line


@pytest.fixture
def few(monkeypatch):
    """Parts of three images, so that there are several."""
    monkeypatch.setattr(image_parts, "PART_IMAGES", 3)


def prepared(tmp_path, name, path, resolution=64, **options):
    """(what `prepare` says, the images read back)."""
    result = prepare(name, path, tmp_path / "data", resolution, quiet, **{"workers": 1} | options)
    reader = open_images(name, tmp_path / "data", resolution)
    images = reader.read(list(range(len(reader)))).reshape(-1, *reader.image_shape)
    return result, images, reader


def resized(pixels, side):
    """Independent of how `converting` crops: what a slice of the pixels becomes."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((side, side), Image.Resampling.LANCZOS))


def from_jpeg(pixels):
    """What a JPEG of the miniatures decodes to."""
    return np.asarray(Image.open(io.BytesIO(miniature.encoded(pixels, "JPEG", quality=90))))


@pytest.mark.parametrize("side", [64, 128, 256])
def test_celeba(tmp_path, side):
    path = miniature.celeba(tmp_path, 3)
    result, images, reader = prepared(tmp_path, "celeba", path, side)
    assert (result.written, result.skipped, result.left_out) == (3, 0, {})
    for number, image in enumerate(images, 1):
        pixels = from_jpeg(miniature.picture(number, 178, 218))[29:189, 9:169]
        np.testing.assert_array_equal(image, resized(pixels, side))
    assert reader.label_names == (*miniature.ATTRIBUTES, *miniature.LANDMARKS)
    for row, number in zip(reader.labels([2, 0]), (3, 1), strict=True):
        attributes, landmarks = miniature.celeba_labels(number)
        assert row.tolist() == [*(int(value > 0) for value in attributes), *landmarks]


@pytest.mark.parametrize("layout", ["zip alone", "unpacked", "in Img and Anno"])
def test_celeba_as_people_keep_it(tmp_path, layout):
    path = miniature.celeba(tmp_path, 2)
    if layout == "zip alone":
        for note in tmp_path.glob("list_*"):
            note.unlink()
        path = path / "img_align_celeba.zip"
    elif layout == "unpacked":
        shutil.unpack_archive(path / "img_align_celeba.zip", path)
        (path / "img_align_celeba.zip").unlink()
        path = path / "img_align_celeba"
    else:
        for folder, files in (("Img", "*.zip"), ("Anno", "list_*")):
            (path / folder).mkdir()
            for file in path.glob(files):
                file.rename(path / folder / file.name)
    _, images, reader = prepared(tmp_path, "celeba", path)
    assert reader.labels([0]).shape == (1, 0 if layout == "zip alone" else 50)
    assert reader.read([]).shape == (0, 64 * 64 * 3)
    pixels = from_jpeg(miniature.picture(2, 178, 218))[29:189, 9:169]
    np.testing.assert_array_equal(images[1], resized(pixels, 64))


@pytest.mark.parametrize("kind", ["png", "npy"])
def test_celeba_hq(tmp_path, kind):
    (tmp_path / "hq").mkdir()
    path = miniature.celeba_hq(tmp_path / "hq", 2, kind)
    _, images, reader = prepared(tmp_path, "celeba_hq", path, 1024)
    np.testing.assert_array_equal(images[1], miniature.picture(1, 1024, 1024))
    assert reader.label_names == ()
    _, images, _ = prepared(tmp_path, "celeba_hq", path, 128)
    np.testing.assert_array_equal(images[0], resized(miniature.picture(0, 1024, 1024), 128))


def test_chairs(tmp_path):
    path = miniature.chairs3d(tmp_path, 6)
    _, images, reader = prepared(tmp_path, "chairs3d_rgb", path)
    # The chair of pictures 3 to 5 has the name that comes first.
    order = [3, 4, 5, 0, 1, 2]
    for image, number in zip(images, order, strict=True):
        pixels = miniature.picture(number, 600, 600)[75:525, 75:525]
        np.testing.assert_array_equal(image, resized(pixels, 64))
    assert reader.label_names == ("chair", "elevation", "azimuth")
    wanted = [[chair, view % 2, view] for chair in (0, 1) for view in range(3)]
    assert reader.labels(list(range(6))).tolist() == wanted
    _, grey, reader = prepared(tmp_path, "chairs3d", path.parent)
    assert reader.image_shape == (64, 64, 1)
    pixels = np.asarray(Image.fromarray(miniature.picture(3, 600, 600)).convert("L"))
    np.testing.assert_array_equal(grey[0, ..., 0], resized(pixels[75:525, 75:525], 64))


@pytest.mark.parametrize("labels", [True, False])
def test_cars(tmp_path, labels):
    path = miniature.cars(tmp_path, 3, labels)
    result, images, reader = prepared(tmp_path, "cars", path)
    assert result.written == 6
    for row, (image, first) in enumerate(zip(images, [100] * 3 + [0] * 3, strict=True)):
        number = row % 3 + 1
        pixels = from_jpeg(miniature.picture(first + number, 200 + 10 * number, 150))
        box = pixels[6:87, 4 + number : 125 + number]  # published from 1, with both ends
        np.testing.assert_array_equal(image, resized(box, 64))
    classes = [0, 1, 2] if labels else [-1, -1, -1]
    assert reader.labels(list(range(6)))[:, 0].tolist() == [*classes, 0, 1, 2]
    with pytest.raises(UserError, match=r"no images of the set cars.*cars_train.tgz"):
        prepare("cars", path, tmp_path / "data", 128, quiet, workers=1)  # all boxes are lower


def test_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    path = miniature.folder(tmp_path / "photos", 6)
    (path / "part0" / "notes.txt").write_text("no image")
    (path / "part0" / ".hidden.png").write_bytes(b"")
    (path / "part0" / "link.png").symlink_to(path / "part0" / "0a.png")
    result, images, _ = prepared(tmp_path, "folder", path, 32)
    assert (result.written, result.left_out) == (6, {"links": 1})
    # part0 first: pictures 0, 2, 4.
    for row, number in ((0, 0), (2, 4)):
        pixels = miniature.picture(number, 90 + number, 80)
        left = (10 + number) // 2
        np.testing.assert_array_equal(images[row], resized(pixels[:, left : left + 80], 32))


def files_of(directory):
    """What was prepared: all bytes but those that tell the time or the way there."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "array_record" in path.name
    }


@pytest.mark.parametrize("kind", ["order of the archive", "two workers", "tar"])
def test_the_same_from_everywhere(tmp_path, few, kind):
    files = [(f"set/{n}.png", miniature.encoded(miniature.picture(n, 20, 20))) for n in range(8)]
    one = miniature.write_zip(tmp_path / "one.zip", files)
    first, images, reader = prepared(tmp_path / "1", "folder", one, 16)
    workers = 1
    if kind == "two workers":
        two, workers = one, 2
    elif kind == "tar":
        two = miniature.write_tar(tmp_path / "two.tgz", files, "w:gz")
    else:
        two = miniature.write_zip(tmp_path / "two.zip", files[::-1])
    _, again, other = prepared(tmp_path / "2", "folder", two, 16, workers=workers)
    np.testing.assert_array_equal(again, images)
    assert other.identity == reader.identity
    assert files_of(tmp_path / "1") == files_of(tmp_path / "2")
    assert len(files_of(tmp_path / "1")) == 1
    assert not (first.directory.parent / "preparing").exists()


def test_several_shards(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    path = miniature.folder(tmp_path / "photos", 6)
    _, images, one = prepared(tmp_path / "1", "folder", path, 32)
    monkeypatch.setattr(image_writing, "_SHARD_BYTES", 5000)
    _, again, reader = prepared(tmp_path / "2", "folder", path, 32)
    assert len(files_of(tmp_path / "2")) > 1
    assert reader.identity == one.identity
    np.testing.assert_array_equal(again, images)


def test_another_identity_for_other_pixels_or_another_size(tmp_path):
    identities = set()
    for name, number in (("a.png", 0), ("a.png", 1)):
        path = miniature.write_zip(
            tmp_path / "a.zip", [(name, miniature.encoded(miniature.picture(number, 20, 20)))]
        )
        identities.add(prepared(tmp_path / str(number), "folder", path, 16)[2].identity)
    identities.add(prepared(tmp_path / "0", "folder", path, 32)[2].identity)
    assert len(identities) == 3


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
