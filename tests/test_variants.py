"""Variants of dSprites: known colours, noise and patches; the same for a seed and an index."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ibgan_jax import data
from ibgan_jax.data import sprites, variants
from ibgan_jax.data.feed import ResidentFeed
from ibgan_jax.data.sprite_dataset import SpriteDataset

SIZES = (3, 2, 5, 3, 2)
FACTORS = np.stack(np.unravel_index(np.arange(180), SIZES), axis=-1)
EXTRA = {"color_dsprites": (("color",), (512,))}


@functools.cache
def small_records():
    return np.packbits(sprites.render(FACTORS), axis=-1).reshape(180, 512)


@functools.cache
def dataset(name, seed=0):
    variant = variants.make(name, seed)
    feed = ResidentFeed(small_records())
    return SpriteDataset(feed, name, sprites.FACTOR_NAMES, SIZES, variant)


@functools.cache
def everything(name, seed=0):
    """All 180 images, as training sees them."""
    made = dataset(name, seed)
    return np.asarray(jax.jit(made.decode)(made.arrays, made.lookup(np.arange(180))))


def inside():
    """Where the sprites are: bool [180, 64, 64]."""
    return sprites.render(FACTORS) == 1


def blank(name, count, side, value, seed=0, **more):
    """Images of sprites that cover nothing (value -1) or everything (1)."""
    made = variants.make(name, seed, **more)
    arrays = jax.tree.map(jnp.asarray, dict(made.arrays))
    on = jnp.full((count, side, side, 1), value, jnp.float32)
    none = jnp.zeros((count, len(made.factor_sizes)), jnp.int32)
    return np.asarray(jax.jit(made.paint)(arrays, on, none, np.arange(count)))


def assert_uniform(values, bins):
    """Values int [N] in [0, bins): chi-square within six of its standard deviations."""
    counts = np.bincount(values, minlength=bins)
    assert len(counts) == bins
    expected = len(values) / bins
    assert expected >= 100
    chi_square = np.square(counts - expected).sum() / expected
    assert abs(chi_square - (bins - 1)) < 6 * math.sqrt(2 * (bins - 1))


@pytest.mark.parametrize("name", variants.NAMES)
def test_facts(name):
    made = dataset(name)
    names, sizes = EXTRA.get(name, ((), ()))
    assert made.size == 180
    assert made.factor_names == (*sprites.FACTOR_NAMES, *names)
    assert made.factor_sizes == SIZES + sizes
    assert made.image_shape == (64, 64, 1 if name == "dsprites" else 3)
    assert len(made.notes) == {"dsprites": 0, "scream_dsprites": 2}.get(name, 1)
    images = everything(name)
    assert images.dtype == np.float32
    assert images.shape == (180, *made.image_shape)
    assert images.min() >= -1 and images.max() <= 1


def test_the_plain_set_is_as_rendered():
    np.testing.assert_array_equal(everything("dsprites")[..., 0], 2.0 * inside() - 1)


@pytest.mark.parametrize("name", variants.NAMES)
def test_images_of_an_examples_factors_are_what_training_sees(name):
    made = dataset(name)
    factors = made.factors_of(np.arange(180))
    assert factors.shape == (180, len(made.factor_sizes))
    np.testing.assert_array_equal(factors[:, :5], FACTORS)
    np.testing.assert_array_equal(made.index_of(factors), np.arange(180))
    np.testing.assert_array_equal(made.images(factors), everything(name))


@pytest.mark.parametrize(
    ("color", "rgb"), [(0, (0, 0, 0)), (511, (7, 7, 7)), (7 * 64 + 3, (7, 0, 3)), (8, (0, 1, 0))]
)
def test_a_color_given_as_a_factor(color, rgb):
    factors = np.column_stack([FACTORS, np.full(180, color)])
    images = (np.asarray(dataset("color_dsprites").images(factors)) + 1) / 2
    wanted = inside()[..., None] * np.array(rgb) / 7
    np.testing.assert_allclose(images, wanted, atol=1e-6)


@pytest.mark.parametrize("color", [-1, 512])
def test_a_color_out_of_range(color):
    with pytest.raises(ValueError, match="invalid entry"):
        dataset("color_dsprites").images([[0, 0, 0, 0, 0, color]])


def test_training_draws_all_512_colors_alike():
    colors = np.asarray(variants.make("color_dsprites", 3).draw(np.arange(2**17)))
    assert colors.shape == (2**17, 1)
    assert_uniform(colors[:, 0], 512)
    # A sprite's colour says nothing of its neighbour's.
    assert_uniform(colors[:-1:2, 0] // 64 * 8 + colors[1::2, 0] // 64, 64)


def test_uniform_colors():
    images = (everything("color_dsprites_uniform") + 1) / 2
    assert (images[~inside()] == 0).all()
    colors = (blank("color_dsprites_uniform", 2**14, 2, 1) + 1) / 2
    assert (colors == colors[:, :1, :1]).all()  # one colour in each image
    colors = colors[:, 0, 0]
    assert colors.min() >= 0.5 and colors.max() <= 1
    bins = np.minimum((colors - 0.5) * 32, 15).astype(int)
    for channel in range(3):
        assert_uniform(bins[:, channel], 16)
    assert_uniform(bins[:, 0] // 4 * 16 + bins[:, 1] // 4 * 4 + bins[:, 2] // 4, 64)


def test_noise_is_added_and_clipped_at_white():
    noise = (blank("noisy_dsprites", 180, 64, -1) + 1) / 2
    image = inside()[..., None].astype(np.float32)
    wanted = np.minimum(image + noise, 1)
    np.testing.assert_array_equal((everything("noisy_dsprites") + 1) / 2, wanted)
    assert (everything("noisy_dsprites")[inside()] == 1).all()


def test_noise_is_uniform_and_independent():
    noise = (blank("noisy_dsprites", 64, 64, -1) + 1) / 2
    assert_uniform((noise * 256).astype(int).ravel(), 256)
    centred = noise - 0.5
    for axis in range(4):  # images, rows, columns, channels
        one, other = np.moveaxis(centred, axis, 0)[:-1], np.moveaxis(centred, axis, 0)[1:]
        assert abs((one * other).mean() * 12) < 6 / math.sqrt(one.size)
    # Not even the images of two seeds are alike.
    other = blank("noisy_dsprites", 64, 64, -1, seed=1) / 2
    assert abs((centred * other).mean() * 12) < 6 / math.sqrt(other.size)


@pytest.fixture
def known_painting(tmp_path):
    """66 x 65 pixels of noise: (path, pixels [66, 65, 3] in [0, 1])."""
    pixels = np.random.default_rng(0).integers(0, 256, (66, 65, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "known.png")
    return tmp_path / "known.png", pixels / 255


def test_the_background_is_a_patch_and_a_tint(known_painting):
    path, pixels = known_painting
    images = (blank("scream_dsprites", 1200, 64, -1, painting=path) + 1) / 2
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (64, 64), (0, 1))
    corners = patches.transpose(0, 1, 3, 4, 2).reshape(6, 64, 64, 3)
    tints = 2 * images[:, None, ::21, ::21] - corners[:, ::21, ::21]  # [1200, 6, 4, 4, 3]
    fits = np.ptp(tints, axis=(2, 3)).max(-1) < 1e-5
    assert (fits.sum(1) == 1).all()
    assert_uniform(fits.argmax(1), 6)
    tints = tints[np.arange(1200), fits.argmax(1), 0, 0]
    assert tints.min() > -1e-5 and tints.max() < 1 + 1e-5
    for channel in range(3):
        assert_uniform(np.clip(tints[:, channel] * 8, 0, 7).astype(int), 8)
    whole = 2 * images[0] - corners[fits[0]][0]
    np.testing.assert_allclose(whole, np.broadcast_to(tints[0], (64, 64, 3)), atol=1e-5)


def test_the_sprite_is_the_patch_inverted():
    images = (everything("scream_dsprites") + 1) / 2
    background = (blank("scream_dsprites", 180, 64, -1) + 1) / 2
    where = inside()
    np.testing.assert_array_equal(images[~where], background[~where])
    np.testing.assert_allclose(images[where], 1 - background[where], atol=1e-6)


@pytest.mark.parametrize("name", variants.NAMES[1:])
def test_seed_and_index_decide(name):
    made = dataset(name)
    decode = jax.jit(made.decode)
    some = decode(made.arrays, made.lookup([[7, 170], [7, 3]]))
    np.testing.assert_array_equal(some, everything(name)[[[7, 170], [7, 3]]])
    with jax.default_prng_impl("unsafe_rbg"):
        configured = jax.jit(lambda *given: made.decode(*given))(made.arrays, made.lookup([9]))
    np.testing.assert_array_equal(configured[0], everything(name)[9])
    for other in (1, 2**32 - 1):
        same = (everything(name, other) == everything(name)).all((1, 2, 3))
        assert same.mean() < 0.05


def test_what_is_drawn_never_changes():
    """Pinned: a run taken up with another version of JAX must see the same images."""
    assert variants.make("color_dsprites", 5).draw([0, 1, 2, 737279]).tolist() == [
        [390],
        [15],
        [457],
        [430],
    ]
    words = variants.random_bits(jnp.array([1, 2], jnp.uint32), (2, 2)).tolist()
    assert words == [[hashed(0, 1, 2), hashed(1, 1, 2)], [hashed(2, 1, 2), hashed(3, 1, 2)]]


def hashed(position, first, second):
    """lowbias32 twice, with Python's integers."""

    def mix(x):
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    return mix((mix(position ^ first) + second) % 2**32)


@pytest.mark.parametrize("name", variants.NAMES)
def test_eager_jit_scan_and_vmap_agree(name):
    made = dataset(name)
    batch = made.lookup(np.arange(12).reshape(3, 4))
    wanted = everything(name)[:12].reshape(3, 4, *made.image_shape)

    @jax.jit
    def scanned(arrays, batch):
        return jax.lax.scan(lambda c, one: (c, made.decode(arrays, one)), 0, batch)[1]

    twice = jax.jit(jax.vmap(jax.vmap(made.decode, (None, 0)), (None, 0)))
    for way in (made.decode, scanned, twice):
        np.testing.assert_array_equal(way(made.arrays, batch), wanted)


@pytest.mark.parametrize("name", variants.NAMES)
def test_no_large_constant_in_the_program(name):
    made = dataset(name)
    closed = jax.make_jaxpr(made.decode)(made.arrays, made.lookup(np.arange(4)))
    assert sum(np.size(constant) for constant in closed.consts) < 100


def test_the_painting_is_placed_by_the_sharding():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P())
    made = SpriteDataset(
        ResidentFeed(small_records(), sharding=sharding),
        "scream_dsprites",
        sprites.FACTOR_NAMES,
        SIZES,
        variants.make("scream_dsprites"),
        sharding,
    )
    assert {name: array.sharding for name, array in made.arrays.items()} == {
        "records": sharding,
        "painting": sharding,
    }
    spread = jax.device_put(np.arange(8, dtype=np.int32), jax.NamedSharding(mesh, jax.P("data")))
    images = jax.jit(made.decode)(made.arrays, {"index": spread})
    np.testing.assert_array_equal(images, everything("scream_dsprites")[:8])


@pytest.mark.parametrize("source", data.SOURCES)
def test_every_source_serves_every_variant(tmp_path, monkeypatch, source):
    from ibgan_jax.data import packed, prepared

    monkeypatch.setattr(sprites, "FACTOR_SIZES", SIZES)
    monkeypatch.setattr(packed, "load_packed", lambda directory, log: small_records())
    monkeypatch.setattr(prepared, "load_prepared", lambda directory, log: small_records())
    if source == "stream":
        pytest.importorskip("grain")
        pytest.importorskip("tensorflow_datasets")
        from ibgan_jax.data import streaming

        small = functools.partial(streaming.open_stream, factor_sizes=SIZES)
        monkeypatch.setattr(streaming, "open_stream", small)
    for name in variants.NAMES:
        made = data.load(name, source, tmp_path, log=lambda line: None, seed=4)
        assert (made.name, made.source, made.size) == (name, source, 180)
        factors = made.factors_of([17, 99])
        np.testing.assert_array_equal(made.images(factors), everything(name, 4)[[17, 99]])
