"""Images streamed from ArrayRecord files: the same ones, at the same steps, as the resident's."""

import resource

import jax
import numpy as np
import pytest

from ibgan_jax.data import sprites, variants
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.order import Order
from ibgan_jax.data.sprite_dataset import SpriteDataset
from ibgan_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("grain")
from ibgan_jax.data.dsprites_tfds import DspritesPacked  # noqa: E402
from ibgan_jax.data.streaming import open_stream  # noqa: E402

SIZES = (3, 2, 5, 3, 2)


def small_records():
    factors = np.stack(np.unravel_index(np.arange(180), SIZES), axis=-1)
    return np.packbits(sprites.render(factors), axis=-1).reshape(180, 512)


def never():
    raise AssertionError("prepared files were written again")


def quiet(line):
    del line


def open_small(directory, records=small_records, log=quiet):
    return open_stream(directory, log, SIZES, records)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """Four files, so that the order is shown to hold from one to the next."""
    directory = tmp_path_factory.mktemp("stream")
    builder = DspritesPacked(
        records=small_records, factor_sizes=SIZES, data_dir=directory, file_format="array_record"
    )
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=4, try_download_gcs=False)
    )
    assert len(list(directory.rglob("*.array_record-*"))) == 4
    return directory


@pytest.fixture(scope="module")
def streamed(directory):
    return open_small(directory, never)


@pytest.fixture(scope="module")
def resident():
    feed = ResidentFeed(small_records())
    return SpriteDataset(feed, "dsprites", sprites.FACTOR_NAMES, SIZES)


def test_facts(streamed):
    assert (streamed.name, streamed.source, streamed.size) == ("dsprites", "stream", 180)
    assert streamed.arrays == {}


def test_every_record_is_at_its_index(streamed):
    batch = streamed.lookup(np.arange(180).reshape(2, 90))
    assert batch["record"].shape == (2, 90, 512)
    np.testing.assert_array_equal(batch["record"].reshape(180, 512), small_records())


def test_repeated_and_unordered_indices(streamed):
    wanted = [7, 179, 7, 0]
    np.testing.assert_array_equal(streamed.lookup(wanted)["record"], small_records()[wanted])
    with pytest.raises(ValueError, match=r"\[0, 180\)"):
        streamed.lookup([180])


def test_images_by_factors(streamed, resident):
    factors = np.array([[0, 0, 0, 0, 0], [2, 1, 4, 2, 1]])
    np.testing.assert_array_equal(streamed.images(factors), resident.images(factors))


# 40 steps of 16 are more than three epochs of 180.
@pytest.mark.parametrize(("first", "steps"), [(0, 4), (4, 4), (6, 7), (39, 5)])
def test_same_images_at_the_same_steps(streamed, resident, first, steps):
    order = Order(180, 11)
    decoded = {}
    for dataset in (streamed, resident):
        decode = jax.jit(dataset.decode)
        batches = list(dataset.batches([order, order], first, 40, steps, 16))
        decoded[dataset.source] = np.concatenate([decode(dataset.arrays, b) for b in batches], 1)
    assert decoded["stream"].shape == (2, 40 - first, 16, 64, 64, 1)
    np.testing.assert_array_equal(decoded["stream"], decoded["resident"])


@pytest.mark.parametrize("name", variants.NAMES)
def test_variants_are_those_of_the_resident(directory, name):
    variant = variants.make(name, seed=2)
    streamed = open_stream(directory, quiet, SIZES, never, name, variant)
    feed = ResidentFeed(small_records())
    resident = SpriteDataset(feed, name, sprites.FACTOR_NAMES, SIZES, variant)
    assert streamed.name == name
    assert streamed.factor_names == resident.factor_names
    assert streamed.image_shape == resident.image_shape
    decoded = []
    for dataset in (streamed, resident):
        decode = jax.jit(dataset.decode)
        batches = dataset.batches([Order(180, 5)], 3, 9, 2, 8)
        decoded.append(np.concatenate([decode(dataset.arrays, b) for b in batches]))
    np.testing.assert_array_equal(*decoded)
    factors = resident.factors_of([3, 150])
    np.testing.assert_array_equal(streamed.factors_of([3, 150]), factors)
    np.testing.assert_array_equal(streamed.images(factors), resident.images(factors))


def test_no_steps(streamed):
    assert list(streamed.batches([Order(180, 0)], 3, 3, 2, 4)) == []


def test_written_once_and_said_so(tmp_path):
    lines = []
    first = open_small(tmp_path, log=lines.append)
    assert len(lines) == 1
    assert "writing ArrayRecord files" in lines[0]
    again = open_small(tmp_path, never, log=lines.append)
    assert len(lines) == 1
    np.testing.assert_array_equal(first.lookup([5])["record"], again.lookup([5])["record"])


@pytest.mark.parametrize("damage", ["remove", "cut", "swap"])
def test_damaged_files(tmp_path, damage):
    open_small(tmp_path)
    (file,) = tmp_path.rglob("*.array_record-*")
    if damage == "remove":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:1000])
    else:
        (tmp_path / "other").mkdir()
        open_stream(tmp_path / "other", quiet, (3, 2, 5, 2, 3), small_records)
        (other,) = (tmp_path / "other").rglob("*.array_record-*")
        file.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=r"is damaged.*remove that directory") as caught:
        open_small(tmp_path, never)
    assert "\n" not in str(caught.value)


def test_a_directory_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not a directory"):
        open_small(tmp_path / "file" / "data")


def test_a_disk_that_fills_up(tmp_path, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(DspritesPacked, "_generate_examples", full)
        with pytest.raises(UserError, match=r"No space left.*--config\.dataset\.dir=DIR"):
            open_small(tmp_path)
    assert not list(tmp_path.rglob("*.array_record*"))
    assert open_small(tmp_path).size == 180


def test_files_that_cannot_grow(tmp_path):
    # ArrayRecord reports this in its own way.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot be written .*File too large"):
            open_small(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_small(tmp_path).size == 180


def test_another_process_was_faster(tmp_path, monkeypatch):
    def race():
        open_small(tmp_path)
        return small_records()

    np.testing.assert_array_equal(
        open_small(tmp_path, race).lookup([9])["record"][0], small_records()[9]
    )


def test_nothing_is_printed_of_a_download(tmp_path, capsys):
    open_small(tmp_path)
    assert capsys.readouterr().out == ""
