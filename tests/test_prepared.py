"""Import of a directory that TFDS prepared: a miniature of the official layout, and its faults."""

import json

import numpy as np
import pytest
from PIL import Image

from ibgan_jax.data import prepared, sprites
from ibgan_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")

SIZES = (3, 2, 5, 3, 2)
FACTORS = np.stack(np.unravel_index(np.arange(180), SIZES), axis=-1)


def packed_records():
    return np.packbits(sprites.render(FACTORS), axis=-1).reshape(180, 512)


def official_features(sizes=SIZES, side=64):
    scalar = tfds.features.Tensor(shape=[], dtype=np.float32)
    positions = ("shape", "scale", "orientation", "x_position", "y_position")
    return {
        "image": tfds.features.Image(shape=(side, side, 1)),
        **{
            f"label_{name}": tfds.features.ClassLabel(num_classes=size)
            for name, size in zip(positions, sizes, strict=True)
        },
        **{f"value_{name}": scalar for name in positions},
    }


class Dsprites(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The official builder, but for where the images come from; shuffled as it is."""

    VERSION = tfds.core.Version("2.0.0")
    examples = staticmethod(lambda: zip(FACTORS, sprites.render(FACTORS), strict=True))
    features = staticmethod(official_features)

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(self.features())
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        labels = [name for name in self.features() if name.startswith("label_")]
        for i, (factors, image) in enumerate(self.examples()):
            example = {"image": Image.fromarray(image)}
            for name, factor in zip(labels, factors, strict=True):
                example[name] = int(factor)
                example[name.replace("label", "value")] = np.float32(factor)
            yield i, example


def prepare(directory, builder=Dsprites, file_format="array_record"):
    made = builder(data_dir=directory, file_format=file_format)
    made.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=2, try_download_gcs=False)
    )
    return directory


def quiet(line):
    del line


def load(directory, cache, log=quiet):
    return prepared.load_prepared(directory, cache, SIZES, log)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("official"))


@pytest.mark.parametrize("below", ["", "dsprites", "dsprites/2.0.0"])
def test_images_in_the_order_of_their_factors(official, tmp_path, below):
    np.testing.assert_array_equal(load(official / below, tmp_path), packed_records())


def test_files_are_shuffled(official):
    # Or the test above would show nothing.
    source = tfds.builder_from_directory(official / "dsprites/2.0.0").as_data_source("train")
    found = [source[i]["label_shape"] for i in range(180)]
    assert sorted(found) == FACTORS[:, 0].tolist() != found


def test_imported_once(official, tmp_path, monkeypatch):
    lines = []
    load(official, tmp_path / "data", log=lines.append)
    assert "importing" in lines[0]
    assert any("imported 180 of 180" in line for line in lines)
    monkeypatch.setattr(prepared, "_import", None)
    np.testing.assert_array_equal(load(official, tmp_path / "data"), packed_records())
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_another_preparation_is_imported_for_itself(official, tmp_path):
    class Dsprites(globals()["Dsprites"], skip_registration=True):
        """Every image the first one."""

        examples = staticmethod(lambda: ((f, sprites.render(FACTORS[:1])[0]) for f in FACTORS))

    other = prepare(tmp_path / "other", Dsprites)
    load(official, tmp_path / "data")
    assert (load(other, tmp_path / "data") == packed_records()[0]).all()
    np.testing.assert_array_equal(load(official, tmp_path / "data"), packed_records())


def test_the_highest_version(official, tmp_path):
    for version in ("2.0.0", "10.0.0", "9.1.0"):
        (tmp_path / "dsprites" / version).mkdir(parents=True)
        (tmp_path / "dsprites" / version / "dataset_info.json").touch()
    assert prepared.find_prepared(tmp_path).name == "10.0.0"
    assert prepared.find_prepared(tmp_path / "dsprites").name == "10.0.0"
    assert prepared.find_prepared(tmp_path / "dsprites" / "9.1.0").name == "9.1.0"


def refused(directory, tmp_path, match):
    with pytest.raises(UserError, match=match) as caught:
        load(directory, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").glob("*.npy"))


def test_no_directory(tmp_path):
    refused(tmp_path / "absent", tmp_path, r"no directory .*absent; .*--config\.dataset\.dir=DIR")


def test_an_empty_directory(tmp_path):
    refused(tmp_path, tmp_path, "no dataset_info.json")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fileFormat": "tfrecord"}, r"tfrecord format.*file_format=array_record"),
        ({"name": "shapes3d"}, "data set 'shapes3d', not 'dsprites'"),
    ],
)
def test_another_format_or_data_set(tmp_path, change, match):
    home = prepare(tmp_path / "tfds") / "dsprites/2.0.0"
    info = json.loads((home / "dataset_info.json").read_text())
    (home / "dataset_info.json").write_text(json.dumps(info | change))
    refused(home, tmp_path, match)


def test_a_damaged_description(tmp_path):
    (tmp_path / "dataset_info.json").write_text("{")
    refused(tmp_path, tmp_path, "cannot be read")


def test_missing_or_cut_files(tmp_path):
    home = prepare(tmp_path / "tfds") / "dsprites/2.0.0"
    file = min(home.glob("*.array_record-*"))
    file.write_bytes(file.read_bytes()[:5000])
    refused(home, tmp_path, "files are missing or damaged")
    file.unlink()
    refused(home, tmp_path, "files are missing or damaged")


def test_no_place_for_the_imported_set(official, tmp_path):
    (tmp_path / "data").touch()
    with pytest.raises(UserError, match=r"not a directory.*start where this directory can be"):
        load(official, tmp_path / "data")


def build(tmp_path, **changes):
    made = type(
        "Dsprites",
        (Dsprites,),
        {k: staticmethod(v) for k, v in changes.items()},
        skip_registration=True,
    )
    return prepare(tmp_path / "tfds", made)


def images():
    return sprites.render(FACTORS)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"features": lambda: official_features(sizes=(3, 2, 5, 3, 4))}, "label_y_position with 2"),
        (
            {
                "features": lambda: official_features(side=32),
                "examples": lambda: zip(FACTORS, images()[:, :32, :32], strict=True),
            },
            r"lacks features .*image of uint8 \[64, 64, 1\]",
        ),
        (
            {"examples": lambda: zip(FACTORS[1:], images()[1:], strict=True)},
            "179 examples, not 180",
        ),
        (
            {"examples": lambda: zip(FACTORS[[1, *range(1, 180)]], images(), strict=True)},
            r"\(0, 0, 0, 0, 0\) is missing",
        ),
        ({"examples": lambda: zip(FACTORS, 255 * images(), strict=True)}, "of 0 and 1.*to 255"),
    ],
)
def test_not_the_official_content(tmp_path, changes, match):
    refused(build(tmp_path, **changes), tmp_path, match)
