"""Prepared images read at random: those that were written, or a line that says otherwise."""

import io
import json
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import archives as miniature
import numpy as np
import pytest
from PIL import Image

from ibgan_jax.data import image_writing, png
from ibgan_jax.data.image_records import open_images
from ibgan_jax.data.preparing import prepare
from ibgan_jax.errors import UserError

pytest.importorskip("tensorflow_datasets")
COUNT = 24


def quiet(line):
    del line


def write(folder, first=0):
    """A prepared set in `folder`/data, of several files; the pictures begin with `first`."""
    pictures = [miniature.picture(first + n, 16, 16) for n in range(COUNT)]
    files = [(f"{n:02d}.png", miniature.encoded(pixels)) for n, pixels in enumerate(pictures)]
    folder.mkdir(exist_ok=True)
    path = miniature.write_zip(folder / "a.zip", files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_writing, "_SHARD_BYTES", 3000)
        prepare("folder", path, folder / "data", 16, quiet, workers=1)
    return folder / "data", np.stack(pictures).reshape(COUNT, -1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("records"))


@pytest.fixture
def copied(written, tmp_path):
    """A copy to damage: (data directory, directory of the files, images)."""
    shutil.copytree(written[0], tmp_path / "data")
    return tmp_path / "data", tmp_path / "data" / "images" / "folder-16" / "1.0.0", written[1]


def test_facts(written):
    directory, _ = written
    reader = open_images("folder", directory, 16)
    assert len(list(directory.rglob("*array_record*"))) > 1
    assert (len(reader), reader.image_shape, reader.label_names) == (COUNT, (16, 16, 3), ())
    assert len(bytes.fromhex(reader.identity)) == 32
    assert reader.labels([3, 1]).shape == (2, 0)


def test_any_order_and_repeats(written):
    directory, images = written
    reader = open_images("folder", directory, 16)
    for wanted in ([], [7], [5, 5, 0, 23], np.random.default_rng(0).permutation(COUNT).tolist()):
        found = reader.read(wanted)
        assert (found.dtype, found.shape) == (np.uint8, (len(wanted), 768))
        np.testing.assert_array_equal(found, images[wanted])
    for wanted in ([COUNT], [-1]):
        with pytest.raises(IndexError, match=r"\[0, 24\)"):
            reader.read(wanted)


def test_many_threads_at_once(written):
    directory, images = written
    reader = open_images("folder", directory, 16)
    orders = [np.random.default_rng(seed).permutation(COUNT).tolist() for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for order, found in zip(orders, pool.map(reader.read, orders), strict=True):
            np.testing.assert_array_equal(found, images[order])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["noise", "rows", "columns", "one pixel"])
def test_png(kind, channels):
    """Pillow reads what we write, and so do we."""
    if kind == "one pixel":
        pixels = np.full((1, 1, channels), 200, np.uint8)
    else:
        size = {"noise": (33, 20), "rows": (33, 1), "columns": (1, 20)}[kind]
        pixels = np.random.default_rng(0).integers(0, 256, (*size, channels), np.uint8)
        pixels = np.ascontiguousarray(np.broadcast_to(pixels, (33, 20, channels)))
    encoded = png.encode(pixels)
    with Image.open(io.BytesIO(encoded)) as image:
        image.verify()
    read = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(read.reshape(pixels.shape), pixels)
    decoded = np.zeros_like(pixels)
    png.decode(encoded, decoded)
    np.testing.assert_array_equal(decoded, pixels)
    if kind in ("rows", "columns"):  # equal pixels side by side or one above the other
        assert len(encoded) < pixels.size / 4 + 60


def test_png_of_others():
    pixels = np.zeros((20, 20, 3), np.uint8)
    for other in (np.zeros((20, 21, 3), np.uint8), np.zeros((4, 4, 1), np.uint8)):
        with pytest.raises(ValueError, match=r"reshape|filter"):
            png.decode(png.encode(other), pixels)
    with pytest.raises((ValueError, zlib.error)):
        png.decode(b"", pixels)


def test_not_prepared(tmp_path):
    with pytest.raises(UserError) as caught:
        open_images("celeba", tmp_path, 64)
    assert str(caught.value) == (
        f"celeba is not prepared at 64 pixels in {tmp_path}; first run: python launch.py "
        "--mode=prepare --config=configs/celeba.py --archives=PATH"
    )
    with pytest.raises(UserError, match="no resolution 63"):
        open_images("celeba", tmp_path, 63)


def read_all(directory):
    return open_images("folder", directory, 16).read(list(range(COUNT)))


def check_damage(directory, place, images):
    """Whether it was noticed; if not, the images must be the right ones."""
    try:
        np.testing.assert_array_equal(read_all(directory), images)
    except UserError as error:
        assert str(error).startswith(f"{place} is damaged (")
        assert str(error).endswith("remove that directory and prepare it again")
        assert "\n" not in str(error)
        return True
    return False


def test_flipped_bits_never_show_another_image(copied):
    directory, place, images = copied
    file = sorted(place.glob("*array_record*"))[1]
    whole = file.read_bytes()
    # Much of such a small file is padding that nobody reads; what is not zero is more telling.
    telling = np.flatnonzero(np.frombuffer(whole, np.uint8))
    places = np.random.default_rng(0).choice(telling, 60, replace=False)
    noticed = 0
    for at in places.tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        file.write_bytes(damaged)
        noticed += check_damage(directory, place, images)
    assert noticed > 50


@pytest.mark.parametrize("part", [0, 0.01, 0.3, 0.9, 0.999])
def test_cut_files(copied, part):
    directory, place, images = copied
    file = sorted(place.glob("*array_record*"))[-1]
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    assert check_damage(directory, place, images)


@pytest.mark.parametrize("damage", ["remove", "swap", "other set", "folder"])
def test_wrong_files(copied, tmp_path, damage):
    directory, place, images = copied
    files = sorted(place.glob("*array_record*"))
    if damage == "remove":
        files[0].unlink()
    elif damage == "swap":
        other = files[1].read_bytes()
        files[1].write_bytes(files[0].read_bytes())
        files[0].write_bytes(other)
    elif damage == "other set":
        other, _ = write(tmp_path / "other", first=100)
        for file in sorted(other.rglob("*array_record*")):
            shutil.copy(file, place / file.name)
    else:
        for file in place.iterdir():
            file.unlink()
    assert check_damage(directory, place, images)


@pytest.mark.parametrize("name", ["metadata.json", "features.json", "dataset_info.json"])
def test_damaged_descriptions(copied, name):
    directory, place, images = copied
    whole = (place / name).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"[]", b"\xff" * 40):
        (place / name).write_bytes(content)
        assert check_damage(directory, place, images)
    (place / name).unlink()
    assert check_damage(directory, place, images)


@pytest.mark.parametrize(
    "change", [{"identity": "0" * 64}, {"written": 23}, {"label_names": ["a"]}]
)
def test_altered_metadata(copied, change):
    directory, place, images = copied
    metadata = json.loads((place / "metadata.json").read_text())
    (place / "metadata.json").write_text(json.dumps(metadata | change))
    assert check_damage(directory, place, images)


def test_damaged_labels(tmp_path):
    path = miniature.chairs3d(tmp_path, 4)
    prepare("chairs3d", path, tmp_path / "data", 64, quiet, workers=1)
    reader = open_images("chairs3d", tmp_path / "data", 64)
    wanted = reader.labels([0, 1, 2, 3])
    (file,) = (tmp_path / "data").rglob("*array_record*")
    whole = file.read_bytes()
    places = [at for at in range(len(whole)) if whole.startswith(b"labels", at)]
    for at in places:
        for offset in (9, 12, 14):
            damaged = bytearray(whole)
            damaged[at + offset] ^= 1
            file.write_bytes(damaged)
            try:
                found = open_images("chairs3d", tmp_path / "data", 64).labels([0, 1, 2, 3])
            except UserError as error:
                assert "is damaged" in str(error)
            else:
                np.testing.assert_array_equal(found, wanted)
