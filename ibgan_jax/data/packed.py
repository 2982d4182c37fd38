"""Packed data sets kept on disk: one `.npy` file of bit-packed images and a JSON note beside it.

The note holds the SHA-256 of the image bytes and is renamed into place after the images, each
from a temporary name, so a process killed at any moment leaves either a valid pair or something
that the next run recognises and makes anew. Two processes that make the same set at once write
under names of their own, and the later rename wins with the same content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data import sprites
from ibgan_jax.errors import UserError, one_line

FORMAT = "ibgan_jax packed images"
FORMAT_VERSION = 1
FILE_NAME = f"dsprites-packed-v{FORMAT_VERSION}.npy"
# Room for the note, the .npy header and the file system's own needs.
SPARE_BYTES = 16 * 2**20
OTHER_DIRECTORY = "choose another directory with --config.dataset.dir=DIR"
_STALE_SECONDS = 3600

Log = Callable[[str], None]


def load_packed(directory: Path, log: Log = print) -> NDArray[np.uint8]:
    """The whole rendered dSprites set, uint8 [737280, 512], drawn once and kept in `directory`.

    Rows are those of `sprites.render_packed_all`. The result is a read-only array in memory, not
    a memory map: its hash has been checked, and JAX may use these very bytes on a CPU, so nothing
    that later happens to the file must reach them.
    Raises UserError when the set must be drawn and `directory` cannot hold it.
    """
    return load_or_make(
        Path(directory) / FILE_NAME,
        shape=(sprites.SIZE, sprites.RECORD_BYTES),
        make=sprites.render_packed_all,
        doing=f"rendering dSprites ({sprites.SIZE:,} images, once, some 10 s)",
        log=log,
    )


def load_or_make(
    path: Path,
    shape: tuple[int, int],
    make: Callable[[], NDArray[np.uint8]],
    doing: str,
    log: Log = print,
    advice: str = OTHER_DIRECTORY,
) -> NDArray[np.uint8]:
    """Read the packed set uint8 `shape` at `path`; where there is no valid one, make and keep it.

    `doing` says in the log what `make` does. Raises UserError (one line: the directory, what is
    wrong with it, and `advice`) when the set must be made and cannot be written.
    """
    records, problem = _read(path, shape)
    if records is not None:
        return records
    if problem:
        log(f"{path}: {problem}; making it anew")
    check_writable(path.parent, needed=shape[0] * shape[1] + SPARE_BYTES, advice=advice)
    log(f"{doing} into {path}")
    start = time.perf_counter()
    records = make()
    if records.shape != shape or records.dtype != np.uint8:
        raise ValueError(f"made {records.dtype} {records.shape} where uint8 {shape} was expected")
    with explained(path.parent, advice):
        _write(path, records)
    log(f"{path} written in {time.perf_counter() - start:.1f} s")
    records.flags.writeable = False
    return records


def note_path(path: Path) -> Path:
    """Where the note on the packed set at `path` lies."""
    return path.with_suffix(".json")


def check_writable(directory: Path, needed: int, advice: str = OTHER_DIRECTORY) -> None:
    """Make `directory` and see that a file of `needed` bytes can be written there, else UserError.

    A file is really created: permission bits say little about a read-only mount or about root.
    """
    with explained(directory, advice):
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe-{uuid.uuid4().hex}.tmp"
        probe.touch(exist_ok=False)
        probe.unlink()
        _remove_stale(directory)
        free = shutil.disk_usage(directory).free
    if free < needed:
        raise UserError(
            f"data directory {directory} has {free // 10**6} MB free but "
            f"{-(-needed // 10**6)} MB are needed; {advice}"
        )


def _read(path: Path, shape: tuple[int, int]) -> tuple[NDArray[np.uint8] | None, str | None]:
    """(records, None), or (None, what is wrong); (None, None) when there is nothing there."""
    note = note_path(path)
    try:
        if not path.exists():
            return None, None
        if not note.exists():
            return None, f"has no note {note.name} (an interrupted write)"
        said = json.loads(note.read_text())
        if not isinstance(said, dict) or said.get("format_version") != FORMAT_VERSION:
            return None, f"{note.name} is not of format version {FORMAT_VERSION}"
        records = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, TokenError) as error:  # NumPy parses a header as Python.
        return None, f"cannot be read ({one_line(error)})"
    if records.shape != shape or records.dtype != np.uint8:
        return None, f"holds {records.dtype} {list(records.shape)}, not uint8 {list(shape)}"
    if not records.flags.c_contiguous or _sha256(records) != said.get("sha256"):
        return None, "is damaged (its SHA-256 is not the one noted)"
    records.flags.writeable = False
    return records, None


def _write(path: Path, records: NDArray[np.uint8]) -> None:
    said = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "shape": list(records.shape),
        "dtype": str(records.dtype),
        "sha256": _sha256(records),
    }
    with _replacing(path) as temporary, temporary.open("xb") as file:
        # Not np.save: where a disk is full, it says how many bytes it wrote but not why.
        header = np.lib.format.header_data_from_array_1_0(records)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(np.ascontiguousarray(records).data)
        file.flush()
        os.fsync(file.fileno())
    with _replacing(note_path(path)) as temporary, temporary.open("x") as file:
        file.write(json.dumps(said, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    _sync_directory(path.parent)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write under, renamed to `path` when all went well and removed when not."""
    temporary = path.with_name(f".{path.name}-{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def explained(directory: Path, advice: str = OTHER_DIRECTORY) -> Iterator[None]:
    """Turn the system's refusal to write into the one line that the user can act on."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # ArrayRecord's writer knows only RuntimeError.
        reason = getattr(error, "strerror", None) or one_line(error)
        if isinstance(error, FileExistsError | NotADirectoryError):
            reason = "not a directory"
        raise UserError(
            f"data directory {directory} cannot be written ({reason}); {advice}"
        ) from error


def _remove_stale(directory: Path) -> None:
    """Remove what a killed process left: temporary files too old to be another one's work."""
    for leftover in directory.glob(".*-????????????????????????????????.tmp"):
        try:
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                leftover.unlink()
        except OSError:
            continue  # Somebody else's, or already gone: not worth stopping for.


def _sync_directory(directory: Path) -> None:
    """Make the renames last through a power cut, on file systems that can sync a directory."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sha256(records: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(records).data).hexdigest()
