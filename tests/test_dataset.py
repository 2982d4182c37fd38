"""The data set as training and metrics see it, here held on the device."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ibgan_jax import data
from ibgan_jax.data import packed, sprites
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.order import Order
from ibgan_jax.data.sprite_dataset import SpriteDataset, unpack
from ibgan_jax.errors import UserError

SIZES = (3, 2, 5, 3, 2)


def small_records():
    factors = np.stack(np.unravel_index(np.arange(180), SIZES), axis=-1)
    return np.packbits(sprites.render(factors), axis=-1).reshape(180, 512)


@pytest.fixture(scope="module")
def dataset():
    feed = ResidentFeed(small_records())
    return SpriteDataset(feed, "dsprites", sprites.FACTOR_NAMES, SIZES)


def test_unpacking_starts_with_the_highest_bit():
    record = jnp.array([[0b10000001, 0, 0b00000010]], jnp.uint8)
    images = unpack(record, (1, 24, 1))
    assert images.shape == (1, 1, 24, 1)
    assert images.dtype == jnp.float32
    assert np.flatnonzero(images.ravel() == 1).tolist() == [0, 7, 22]
    assert set(np.unique(images)) == {-1, 1}


def test_images_are_the_rendered_ones(dataset):
    factors = np.array([[0, 0, 0, 0, 0], [1, 1, 4, 2, 1], [2, 0, 3, 1, 0]])
    images = dataset.images(factors)
    assert images.shape == (3, 64, 64, 1)
    np.testing.assert_array_equal(images[..., 0], 2.0 * sprites.render(factors) - 1)


def test_facts(dataset):
    assert (dataset.name, dataset.source, dataset.size) == ("dsprites", "resident", 180)
    assert dataset.image_shape == (64, 64, 1)
    assert dataset.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert dataset.factor_sizes == SIZES


def test_numbering(dataset):
    assert dataset.index_of([0, 0, 0, 1, 0]) == 2
    assert dataset.index_of([2, 1, 4, 2, 1]) == 179
    everything = np.arange(180).reshape(2, 90)
    np.testing.assert_array_equal(dataset.index_of(dataset.factors_of(everything)), everything)


def test_batches_follow_the_order(dataset):
    order = Order(dataset.size, 1)
    other = Order(dataset.size, 2)
    batches = list(dataset.batches([order, other], 2, 8, 3, 4))
    assert [batch["index"].shape for batch in batches] == [(2, 3, 4), (2, 3, 4)]
    assert batches[0]["index"].dtype == np.int32
    for member, expected in enumerate((order, other)):
        seen = np.concatenate([batch["index"][member].ravel() for batch in batches])
        np.testing.assert_array_equal(seen, expected.indices(8, 24))


def test_the_last_dispatch_holds_what_is_left(dataset):
    batches = list(dataset.batches([Order(180, 1)], 0, 5, 2, 4))
    assert [len(batch["index"][0]) for batch in batches] == [2, 2, 1]
    assert list(dataset.batches([Order(180, 1)], 5, 5, 2, 4)) == []


def test_parts_make_up_the_global_batch(dataset):
    def parts(part):
        return next(dataset.batches([Order(180, 1)], 0, 2, 2, 6, part))["index"]

    joined = np.concatenate([parts(slice(0, 3)), parts(slice(3, 6))], axis=-1)
    np.testing.assert_array_equal(joined, parts(slice(None)))


def test_no_copy_of_the_data_set_in_the_program(dataset):
    def step(arrays, batch):
        return dataset.decode(arrays, batch).mean()

    closed = jax.make_jaxpr(step)(dataset.arrays, dataset.lookup(np.arange(4)))
    assert sum(np.size(constant) for constant in closed.consts) < 100


def test_decode_goes_through_scan_and_vmap(dataset):
    batch = dataset.lookup(np.arange(12).reshape(3, 4))

    @jax.jit
    def totals(arrays, batch):
        def body(carry, one):
            return carry, dataset.decode(arrays, one).sum()

        return jax.lax.scan(body, 0, batch)[1]

    whole = dataset.decode(dataset.arrays, batch)
    assert whole.shape == (3, 4, 64, 64, 1)
    np.testing.assert_array_equal(totals(dataset.arrays, batch), whole.sum((1, 2, 3, 4)))
    mapped = jax.vmap(dataset.decode, (None, 0))(dataset.arrays, batch)
    np.testing.assert_array_equal(mapped, whole)


def test_a_sharding_is_kept():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P())
    feed = ResidentFeed(small_records(), sharding=sharding)
    dataset = SpriteDataset(feed, "dsprites", sprites.FACTOR_NAMES, SIZES)
    assert dataset.arrays["records"].sharding == sharding


@pytest.mark.parametrize("index", [-1, 180])
def test_an_index_out_of_range(dataset, index):
    with pytest.raises(ValueError, match=r"\[0, 180\)"):
        dataset.lookup([0, index])


def test_records_for_other_factors():
    feed = ResidentFeed(small_records())
    with pytest.raises(ValueError, match="180 records for 1 combinations"):
        SpriteDataset(feed, "dsprites", sprites.FACTOR_NAMES, (1, 1, 1, 1, 1))


def test_load_lists_what_there_is(tmp_path):
    with pytest.raises(UserError, match=r"'shapes'.*dsprites"):
        data.load("shapes", "resident", tmp_path)
    with pytest.raises(UserError, match=r"'web'.*resident, stream, tfds"):
        data.load("dsprites", "web", tmp_path)


def test_load_resident(tmp_path, monkeypatch):
    monkeypatch.setattr(sprites, "FACTOR_SIZES", SIZES)
    monkeypatch.setattr(packed, "load_packed", lambda directory, log: small_records())
    dataset = data.load("dsprites", "resident", str(tmp_path))
    assert dataset.source == "resident"
    assert dataset.images([[1, 1, 1, 1, 1]]).shape == (1, 64, 64, 1)


BARE = """
import sys
for name in ("grain", "tensorflow_datasets", "array_record", "ml_collections", "tensorflow"):
    sys.modules[name] = None
import numpy as np
from ibgan_jax import data
from ibgan_jax.data import packed, sprites
sprites.FACTOR_SIZES = (1, 1, 1, 1, 2)
packed.load_packed = lambda directory, log: np.zeros((2, 512), np.uint8)
print(data.load("dsprites", "resident", "nowhere").images([[0, 0, 0, 0, 1]]).max())
try:
    data.load("dsprites", "stream", "nowhere")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_resident_needs_neither_grain_nor_tfds():
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "-1.0"
    assert second.startswith("UserError dataset.source=stream needs grain")
