"""Moments of features, and their keeping: what is read back is what was made, or made anew."""

import jax
import numpy as np
import pytest

from ibgan_jax.metrics.fid import fid
from ibgan_jax.metrics.moments import kept, statistics_of

KEY = {"dataset": "dsprites", "image_shape": [64, 64, 1], "protocol": "inception", "count": 7}
RECORD = {"protocol": "factor_net", "sha256": "0" * 64}


def statistics(seed=0, count=30, width=3):
    features = np.random.default_rng(seed).normal(size=(count, width))
    return statistics_of(np.asarray, [features])


def same(one, other):
    arrays = zip((one.mean, one.scatter), (other.mean, other.scatter), strict=True)
    return one.count == other.count and all(np.array_equal(a, b) for a, b in arrays)


def test_sums_and_differences():
    features = 100 + np.random.default_rng(0).normal(size=(50, 4))
    whole, part = (statistics_of(np.asarray, [x]) for x in (features, features[:20]))
    rest = statistics_of(np.asarray, [features[20:]])
    for found, wanted in ((part + rest, whole), (whole - part, rest)):
        assert found.count == wanted.count
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-13)
        np.testing.assert_allclose(found.scatter, wanted.scatter, atol=1e-9)


class Maker:
    """Makes statistics and counts how often."""

    def __init__(self):
        self.times, self.lines = 0, []

    def __call__(self):
        self.times += 1
        return statistics()

    def ask(self, folder, **changed):
        return kept(folder, KEY | changed, self, self.lines.append)


def test_they_are_made_once(tmp_path):
    maker, folder = Maker(), tmp_path / "new" / "folder"
    first, second = maker.ask(folder), maker.ask(folder)
    assert (maker.times, maker.lines) == (1, [])
    assert same(first, second)
    assert second.mean.dtype == second.scatter.dtype == np.float64
    assert len(list(folder.iterdir())) == 1


def test_without_a_folder_nothing_is_kept():
    maker = Maker()
    maker.ask(None)
    maker.ask(None)
    assert maker.times == 2


@pytest.mark.parametrize("name", list(KEY))
def test_each_part_of_the_key_counts(tmp_path, name):
    maker = Maker()
    maker.ask(tmp_path)
    maker.ask(tmp_path, **{name: [64, 64, 3] if name == "image_shape" else "other"})
    assert maker.times == 2


def test_a_file_moved_to_anothers_name_is_not_believed(tmp_path):
    maker = Maker()
    maker.ask(tmp_path)
    (one,) = tmp_path.iterdir()
    maker.ask(tmp_path, dataset="other")
    (other,) = set(tmp_path.iterdir()) - {one}
    other.replace(one)
    maker.ask(tmp_path)
    assert maker.times == 3
    assert "about other images" in maker.lines[0]


def test_damage_is_noticed_and_mended(tmp_path):
    maker = Maker()
    wanted = maker.ask(tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    damaged = [b"", content[:-1], content + b"0", b"\n".join([b"", *content.split(b"\n")])]
    for at in range(0, len(content), 7):
        damaged.append(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    for times, harm in enumerate(damaged, 2):
        path.write_bytes(harm)
        assert same(maker.ask(tmp_path), wanted)
        assert maker.times == times
        assert "made anew: its checksum" in maker.lines[-1]
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    maker = Maker()
    assert same(maker.ask(tmp_path / "file" / "folder"), statistics())
    assert any("cannot be kept" in line for line in maker.lines)
    assert all("\n" not in line for line in maker.lines)


# ------------------------------------------------------------------------------------- within FID


class Images:
    """60 images [1, 1, 2] of normal numbers."""

    name, size = "images", 60

    def __init__(self, seed=0, shape=(1, 1, 2)):
        self.asked, self.all = 0, np.random.default_rng(seed).normal(size=(60, *shape))

    def examples(self, indices):
        self.asked += len(indices)
        return self.all[indices]


def score(dataset, folder, key=0, record=RECORD, count=50):
    return fid(
        lambda images: images.reshape(len(images), -1),
        dataset,
        lambda key, count: jax.random.normal(key, (count, *dataset.all.shape[1:])),
        jax.random.key(key),
        count,
        10,
        record=record,
        cache=folder,
    )


def test_the_real_images_are_seen_once(tmp_path):
    dataset = Images()
    first, asked = score(dataset, tmp_path), dataset.asked
    dataset.asked = 0
    assert score(dataset, tmp_path) == first == score(Images(), None)
    assert dataset.asked == 10 < asked  # by the first batch it knows them again


@pytest.mark.parametrize(
    ("dataset", "changed"),
    [
        (Images(seed=1), {}),
        (Images(shape=(1, 2, 1)), {}),
        (Images(), {"key": 1}),
        (Images(), {"count": 51}),
        (Images(), {"record": RECORD | {"protocol": "inception"}}),
        (Images(), {"record": RECORD | {"sha256": "1" * 64}}),
    ],
)
def test_statistics_never_serve_for_others(tmp_path, dataset, changed):
    score(Images(), tmp_path)
    assert score(dataset, tmp_path, **changed) == score(dataset, None, **changed)
    assert len(list(tmp_path.iterdir())) == 2


def test_names_and_identities_tell_data_sets_apart(tmp_path):
    score(Images(), tmp_path)
    for name, value in (("name", "other"), ("identity", "4f"), ("identity", "50")):
        dataset = Images()
        setattr(dataset, name, value)
        score(dataset, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
