"""dSprites from a directory that TensorFlow Datasets has prepared, imported once.

TFDS keeps the official data set as shuffled PNGs. It is read through, put in the order of its
factors, checked, and kept as a packed file, from which it is then fed like the rendered set.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data import packed, sprites
from ibgan_jax.errors import UserError, blamed_on

NAME = "dsprites"
LABELS = ("label_shape", "label_scale", "label_orientation", "label_x_position", "label_y_position")
_SPLIT = "train"
_CHUNK = 4096
_THREADS = 2
_blamed_on = partial(blamed_on, verdict="cannot be read", advice=": files are missing or damaged")


def load_prepared(
    directory: Path,
    cache: Path = Path("data"),
    factor_sizes: tuple[int, ...] = sprites.FACTOR_SIZES,
    log: Callable[[str], None] = print,
) -> NDArray[np.uint8]:
    """The packed images uint8 [N, 512], in the order of their factors, of a prepared directory.

    `directory` holds dataset_info.json, or VERSION/ or dsprites/VERSION/ that does (the highest
    version is taken). The packed file goes to `cache`, under a name derived from the prepared
    files, since `directory` may be read-only. Raises UserError when `directory` is not a
    prepared, complete dSprites in ArrayRecord format, or `cache` cannot be written.
    """
    home = find_prepared(directory)
    _check_format(home)
    size = math.prod(factor_sizes)
    return packed.load_or_make(
        Path(cache) / f"{NAME}-tfds-{_identity(home)}-v{packed.FORMAT_VERSION}.npy",
        shape=(size, sprites.RECORD_BYTES),
        make=lambda: _import(home, factor_sizes, log),
        doing=f"importing {home} ({size:,} images, once, about a minute for dSprites)",
        log=log,
        advice="with dataset.source=tfds, start where this directory can be written",
    )


def find_prepared(directory: Path) -> Path:
    """The version directory that `directory` is or contains. Raises UserError when none."""
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(
            f"no directory {directory}; with dataset.source=tfds, --config.dataset.dir=DIR names "
            f"a directory in which TFDS has prepared {NAME}"
        )
    if (directory / "dataset_info.json").exists():
        return directory
    for parent in (directory, directory / NAME):
        homes = [path.parent for path in parent.glob("*/dataset_info.json")]
        if homes:
            return max(homes, key=_version)
    raise UserError(
        f"{directory} holds no data set prepared by TFDS: there is no dataset_info.json in it, in "
        f"VERSION/ or in {NAME}/VERSION/"
    )


def _version(home: Path) -> tuple[int, ...]:
    parts = home.name.split(".")
    return tuple(int(part) for part in parts) if all(p.isdigit() for p in parts) else ()


def _check_format(home: Path) -> None:
    """Refuse another data set and TFRecord files, before anything heavy is imported."""
    try:
        info = json.loads((home / "dataset_info.json").read_text())
        name, file_format = info["name"], info.get("fileFormat", "tfrecord")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{home}/dataset_info.json cannot be read ({error!r})") from error
    if name != NAME:
        raise UserError(f"{home} holds the data set {name!r}, not {NAME!r}")
    if file_format != "array_record":
        raise UserError(
            f"{home} is in {file_format} format, which only TensorFlow reads; prepare it again "
            "with file_format='array_record' (tfds build --file_format=array_record)"
        )


def _identity(home: Path) -> str:
    """Twelve hex digits that name what lies in `home`: its descriptions, file names and sizes."""
    digest = hashlib.sha256()
    for path in sorted(home.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _import(
    home: Path, factor_sizes: tuple[int, ...], log: Callable[[str], None]
) -> NDArray[np.uint8]:
    """Read every example of `home` once: uint8 [N, 512] in the order of the factors."""
    source, parse = _open(home, factor_sizes)
    size = math.prod(factor_sizes)
    if len(source) != size:
        raise UserError(f"{home} holds {len(source)} examples, not {size}: it is not complete")
    records = np.zeros((size, sprites.RECORD_BYTES), np.uint8)
    seen = np.zeros(size, np.bool_)
    done = 0
    for labels, images in _read_chunks(source, parse, home):
        if (labels < 0).any() or (labels >= factor_sizes).any():
            raise UserError(f"{home} holds a label outside the factor sizes {factor_sizes}")
        index = np.ravel_multi_index(tuple(labels.T), factor_sizes)
        records[index] = images
        seen[index] = True
        tenth, done = done * 10 // size, done + len(index)
        if done * 10 // size > tenth:
            log(f"imported {done:,} of {size:,} images")
    # As many examples as combinations: if each occurs, none occurs twice.
    if not seen.all():
        missing = np.unravel_index(np.argmin(seen), factor_sizes)
        raise UserError(
            f"{home} does not hold every combination of factors once: "
            f"{tuple(int(value) for value in missing)} is missing"
        )
    return records


def _open(home: Path, factor_sizes: tuple[int, ...]) -> tuple[Any, Callable[[bytes], Any]]:
    """A random-access source of serialised examples, and what parses one."""
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2
    except ImportError as error:
        raise UserError(
            f"dataset.source=tfds needs tensorflow-datasets and array_record ({error}); install "
            "them or use --config.dataset.source=resident"
        ) from error
    with _blamed_on(home):
        builder = tfds.builder_from_directory(home)
        _check_features(builder.info.features, factor_sizes, home)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        source = builder.as_data_source(_SPLIT, deserialize_method=raw)
    return source, tf_example_pb2.Example.FromString


def _check_features(features: Any, factor_sizes: tuple[int, ...], home: Path) -> None:
    found = dict(features.items())
    wrong = [
        f"{name} with {size} classes"
        for name, size in zip(LABELS, factor_sizes, strict=True)
        if getattr(found.get(name), "num_classes", None) != size
    ]
    image = found.get("image")
    if image is None or tuple(image.shape) != (64, 64, 1) or image.np_dtype != np.uint8:
        wrong.insert(0, "image of uint8 [64, 64, 1]")
    if wrong:
        raise UserError(f"{home} lacks features of the official {NAME}: {', '.join(wrong)}")


def _read_chunks(
    source: Any, parse: Callable[[bytes], Any], home: Path
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """(labels int64 [n, 5], packed images uint8 [n, 512]) of all examples, in the files' order."""

    def read(start: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        stop = min(start + _CHUNK, len(source))
        with _blamed_on(home):
            serialised = source.__getitems__(range(start, stop))
            examples = [parse(example).features.feature for example in serialised]
            labels = [[example[key].int64_list.value[0] for key in LABELS] for example in examples]
            images = [_decoded(example["image"].bytes_list.value[0], home) for example in examples]
        records = np.packbits(np.stack(images), axis=-1).reshape(len(images), -1)
        return np.array(labels, np.int64), records

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(read, range(0, len(source), _CHUNK))


def _decoded(encoded: bytes, home: Path) -> NDArray[np.uint8]:
    """A PNG of 0 and 1: uint8 [64, 64]. Raises UserError for any other image."""
    from PIL import Image

    image = np.asarray(Image.open(io.BytesIO(encoded)))
    if image.shape != (64, 64) or image.dtype != np.uint8 or image.max() > 1:
        raise UserError(
            f"{home} holds an image that is not uint8 [64, 64, 1] of 0 and 1: {image.dtype} "
            f"{list(image.shape)} up to {image.max()}"
        )
    return image
