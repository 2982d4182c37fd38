"""dSprites in ArrayRecord files, written once and read as training goes."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data import packed, sprites
from ibgan_jax.data.feed import StreamedFeed
from ibgan_jax.data.sprite_dataset import PLAIN, SpriteDataset
from ibgan_jax.data.variants import Variant
from ibgan_jax.errors import UserError, blamed_on

if TYPE_CHECKING:
    from ibgan_jax.data.dsprites_tfds import DspritesPacked

_BYTES_ON_DISK = 300  # of a record, rounded up from the 220 measured
_STALE_SECONDS = 3600
_blamed_on = functools.partial(
    blamed_on, verdict="is damaged", advice="; remove that directory to have it written anew"
)


class RecordReader:
    """Random access to the packed records of a prepared `DspritesPacked`."""

    def __init__(self, builder: DspritesPacked) -> None:
        """Open the files of `builder`, which must be prepared.

        It and all reading raise UserError when they are damaged.
        """
        import tensorflow_datasets as tfds
        from tensorflow_datasets.proto import tf_example_pb2

        from ibgan_jax.data.dsprites_tfds import SPLIT

        # TFDS's own decoding of a whole example costs eight times what its parsing does.
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._place = Path(builder.data_dir)
        with _blamed_on(self._place):
            self._source = builder.as_data_source(SPLIT, deserialize_method=raw)
        self._parse = tf_example_pb2.Example.FromString

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: list[int]) -> NDArray[np.uint8]:
        """Records of `indices` (any order, repeats allowed): uint8 [len(indices), 512]."""
        values = [
            example.features.feature["record"].bytes_list.value[0]
            for example in self._examples(indices)
        ]
        return np.frombuffer(b"".join(values), np.uint8).reshape(-1, sprites.RECORD_BYTES)

    def factors(self, indices: list[int]) -> NDArray[np.int64]:
        """Factor indices stored with the records of `indices`: int64 [len(indices), 5]."""
        keys = [f"label_{name}" for name in sprites.FACTOR_NAMES]
        return np.array(
            [
                [example.features.feature[key].int64_list.value[0] for key in keys]
                for example in self._examples(indices)
            ],
            np.int64,
        )

    def _examples(self, indices: list[int]) -> list[Any]:
        with _blamed_on(self._place):
            return [self._parse(raw) for raw in self._source.__getitems__(indices)]


def open_stream(
    directory: Path,
    log: Callable[[str], None] = print,
    factor_sizes: tuple[int, ...] = sprites.FACTOR_SIZES,
    records: Callable[[], NDArray[np.uint8]] | None = None,
    name: str = "dsprites",
    variant: Variant = PLAIN,
    sharding: jax.sharding.Sharding | None = None,
) -> SpriteDataset:
    """dSprites from ArrayRecord files under `directory`, which are written on first use.

    `records()` gives uint8 [N, 512] to write, by default the rendered set that `packed` keeps in
    the same directory. `variant` shows them, and `sharding` places its arrays.
    Raises UserError when Grain or TFDS is missing, when the files cannot be written, or when they
    are damaged.
    """
    try:
        import grain  # noqa: F401 - said here rather than at the first batch

        from ibgan_jax.data.dsprites_tfds import DspritesPacked
    except ImportError as error:
        raise UserError(
            f"dataset.source=stream needs grain, array_record and tensorflow-datasets ({error}); "
            "install them or use --config.dataset.source=resident"
        ) from error

    home = Path(directory) / DspritesPacked.name / str(DspritesPacked.VERSION)

    def builder(records: Callable[[], NDArray[np.uint8]] | None = None) -> DspritesPacked:
        # It reads what describes the files, where there are some.
        with _blamed_on(home) if home.exists() else contextlib.nullcontext():
            return DspritesPacked(
                records=records,
                factor_sizes=factor_sizes,
                data_dir=directory,
                file_format="array_record",
            )

    if not _is_prepared(builder()):
        packed.check_writable(
            directory, needed=math.prod(factor_sizes) * _BYTES_ON_DISK + packed.SPARE_BYTES
        )
        made = (records or functools.partial(packed.load_packed, directory, log))()
        _prepare(builder(lambda: made), directory, log)
    reader = _open_reader(builder(), factor_sizes)
    feed = StreamedFeed(reader)
    return SpriteDataset(feed, name, sprites.FACTOR_NAMES, factor_sizes, variant, sharding)


def _is_prepared(builder: DspritesPacked) -> bool:
    return (Path(builder.data_dir) / "dataset_info.json").exists()


def _prepare(builder: DspritesPacked, directory: Path, log: Callable[[str], None]) -> None:
    import tensorflow_datasets as tfds

    home = Path(builder.data_dir)
    _remove_stale(home.parent)
    log(f"writing ArrayRecord files (once, about a minute for dSprites) into {home}")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # Nothing is fetched; without this TFDS asks a server whether it has the data set.
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        # What TFDS prints speaks of a download.
        with packed.explained(directory), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(download_config=config)
    except UserError:
        # Another process may have finished the same work first: TFDS renames a whole folder
        # into place, and only the first can.
        if not _is_prepared(builder):
            raise


def _open_reader(builder: DspritesPacked, factor_sizes: tuple[int, ...]) -> RecordReader:
    """Open the files and look at some records: each must lie at the index its factors give."""
    size = math.prod(factor_sizes)
    sample = np.unique(np.linspace(0, size - 1, 64).astype(np.int64))
    wanted = np.stack(np.unravel_index(sample, factor_sizes), axis=-1)
    reader = RecordReader(builder)
    with _blamed_on(Path(builder.data_dir)):
        if len(reader) != size or not np.array_equal(reader.factors(sample.tolist()), wanted):
            raise ValueError(f"not the {size} records expected, in order")
    return reader


def _remove_stale(directory: Path) -> None:
    """Remove what a killed preparation left, once it is too old to be one that still runs."""
    for leftover in directory.glob("incomplete.*"):
        if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
