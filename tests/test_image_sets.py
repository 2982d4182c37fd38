"""Sets of images prepared from miniature archives: every pixel, every label, the same order."""

import shutil

import archives as miniature
import numpy as np
import pytest
from PIL import Image
from preparation import files_of, from_jpeg, prepared, quiet, resized

from ibgan_jax.data import image_writing
from ibgan_jax.data.preparing import prepare
from ibgan_jax.errors import UserError

pytest.importorskip("tensorflow_datasets")


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
