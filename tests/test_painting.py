"""The painting behind Scream-dSprites: files of all kinds, bad ones, and the stand-in."""

import numpy as np
import pytest
from PIL import Image

from ibgan_jax import data
from ibgan_jax.data import painting, variants
from ibgan_jax.errors import UserError


def save(path, size, mode="RGB"):
    Image.new(mode, size, {"RGB": (255, 0, 51), "L": 102, "RGBA": (255, 0, 51, 255)}[mode]).save(
        path
    )
    return path


@pytest.mark.parametrize(
    ("size", "shrunk"),
    [
        ((64, 64), (64, 64)),
        ((700, 548), (350, 274)),
        ((540, 685), (216, 274)),
        ((700, 128), (350, 64)),
    ],
)
def test_a_painting_is_shrunk_to_fit_350_by_274(tmp_path, size, shrunk):
    pixels, note = painting.read_painting(str(save(tmp_path / "red.png", size)))
    assert pixels.dtype == np.float32
    assert pixels.shape == (shrunk[1], shrunk[0], 3)
    np.testing.assert_allclose(pixels, np.broadcast_to([1, 0, 0.2], pixels.shape), atol=1e-6)
    assert f"red.png, shrunk to {shrunk[0]} x {shrunk[1]} pixels" in note
    assert str(tmp_path) not in note


@pytest.mark.parametrize(("mode", "color"), [("L", [0.4] * 3), ("RGBA", [1, 0, 0.2])])
def test_other_pictures_become_rgb(tmp_path, mode, color):
    pixels, _ = painting.read_painting(save(tmp_path / "other.png", (70, 64), mode))
    np.testing.assert_allclose(pixels, np.broadcast_to(color, (64, 70, 3)), atol=1e-6)


def spoil(path, kind):
    if kind == "text":
        path.write_text("not a picture")
    elif kind == "cut":
        Image.effect_noise((200, 200), 50).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "directory":
        path.mkdir()
    elif kind == "flat":
        save(path, (700, 100))
    elif kind == "small":
        save(path, (100, 63))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "there is no such file"),
        ("directory", "there is no such file"),
        ("text", "it is not a picture"),
        ("cut", "truncated"),
        ("flat", "it measures 350 x 50"),
        ("small", "it measures 100 x 63"),
    ],
)
def test_a_bad_painting(tmp_path, kind, reason):
    path = tmp_path / "bad.png"
    spoil(path, kind)
    with pytest.raises(UserError, match=reason) as caught:
        data.load("scream_dsprites", "resident", tmp_path / "data", painting=str(path))
    line = str(caught.value)
    assert line.startswith(f"dataset.painting={path} ")
    assert "64 x 64" in line and "\n" not in line
    assert not (tmp_path / "data").exists()  # it is looked at before anything is rendered


def test_a_painting_for_another_variant(tmp_path):
    with pytest.raises(UserError, match=r"only for dataset.name=scream_dsprites, not noisy"):
        data.load("noisy_dsprites", "resident", tmp_path, painting="scream.jpg")


def test_the_notes_say_which_painting(tmp_path):
    assert "generated stand-in" in variants.make("scream_dsprites").notes[1]
    path = save(tmp_path / "known.png", (64, 64))
    notes = variants.make("scream_dsprites", painting=str(path)).notes
    assert "known.png" in notes[1] and "stand-in" not in " ".join(notes)


def test_the_stand_in_is_a_picture():
    pixels, _ = painting.stand_in()
    assert pixels.shape == (274, 350, 3)
    np.testing.assert_array_equal(pixels, painting.stand_in()[0])
    levels = pixels * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    assert (levels.min((0, 1)) == 0).all() and (levels.max((0, 1)) > 254).all()
    # Smooth, but nowhere flat: a patch tells where it is from.
    patches = np.lib.stride_tricks.sliding_window_view(pixels, (64, 64), (0, 1))[::15, ::15]
    assert patches.std((3, 4)).min() > 0.02
    assert np.abs(np.diff(pixels, axis=0)).max() < 0.2
