"""The files of a .tar or .tgz, in one pass and within limits."""

from __future__ import annotations

import gzip
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ibgan_jax.data.entry import (
    ELSEWHERE,
    MAX_ENTRY_BYTES,
    Entry,
    Wanted,
    blamed_on,
    check_ratio,
    safe_name,
    too_large,
)

BLOCK = 512
_MAX_HEADER_BYTES = 2**20


def read_tar(
    path: Path, wanted: Wanted, left_out: Counter[str], compressed: bool
) -> Iterator[Entry]:
    """As `archives.entries`, for a .tar, or with `compressed` a .tgz.

    Header by header, because `tarfile` takes a damaged header for the end and says nothing.
    """
    with path.open("rb") as file:
        stream = _Bounded(path, file, compressed)
        extended: dict[str, str] = {}  # what was said beforehand of the file that follows
        while True:
            with blamed_on(path):
                header = stream.read(BLOCK)
                if not any(header):
                    break
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
                if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
                    extended |= _extended(info.type, stream.padded(info.size, _MAX_HEADER_BYTES))
                    continue
                info.name = extended.get("path", info.name)
                info.size = int(extended.get("size", info.size))
                take = _is_taken(info, extended, wanted, left_out)
                if not take or info.size > MAX_ENTRY_BYTES:
                    stream.skip(info.size)
                    data = None
                else:
                    data = stream.padded(info.size, MAX_ENTRY_BYTES)
                # What concerns all files or the target of a link stands between the two.
                if info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                    extended = {}
            if take:
                problem = "" if data is not None else too_large(info.size)
                yield Entry(safe_name(info.name) or "", data, problem, stream.done)
        # To the very end, for only there stands the checksum of what was compressed.
        with blamed_on(path):
            while stream.some(2**20):
                pass


def _is_taken(
    info: tarfile.TarInfo, extended: dict[str, str], wanted: Wanted, left_out: Counter[str]
) -> bool:
    """Whether a file is to be read; corrects the size of what has no data whatever it says."""
    if info.issym() or info.islnk() or info.isdir() or info.isdev():
        info.size = 0
        if not info.isdir():
            left_out["devices" if info.isdev() else "links"] += 1
        return False
    if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
        raise ValueError("a file of a negative size, or a sparse one")
    if not info.isreg() or "sparse" in extended:
        return False
    name = safe_name(info.name)
    if name is None:
        left_out[ELSEWHERE] += 1
    return name is not None and wanted(name)


def _extended(kind: bytes, data: bytes) -> dict[str, str]:
    """What a GNU long name or a POSIX extended header says: "path", "size", that it is "sparse"."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    found, start = {}, 0
    while start < len(data) and data[start]:
        # A record is "LENGTH KEY=VALUE\n", and LENGTH counts all of it.
        space = data.index(b" ", start, start + 20)
        end = start + int(data[start:space])
        if not space < end <= len(data):
            raise ValueError("an extended header of a wrong length")
        key, _, value = data[space + 1 : end - 1].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        elif key.startswith(b"GNU.sparse"):
            found["sparse"] = ""
        start = end
    return found


class _Bounded:
    """Reads a .tar through, and stops where its compression is beyond all measure."""

    def __init__(self, path: Path, file: BinaryIO, compressed: bool) -> None:
        self._path, self._file = path, file
        self._plain: BinaryIO = gzip.GzipFile(fileobj=file) if compressed else file
        self._size, self._count = max(1, path.stat().st_size), 0

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises EOFError where there are fewer."""
        data = self.some(size)
        if len(data) != size:
            raise EOFError("it ends too early")
        return data

    def some(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        data = self._plain.read(size)
        self._count += len(data)
        check_ratio(self._path, self._count, self._file.tell())
        return data

    def padded(self, size: int, largest: int) -> bytes:
        """`size` bytes, read with what fills up their last block. Raises ValueError if too many."""
        if not 0 <= size <= largest:
            raise ValueError(f"a header of {size:,} bytes")
        return self.read(-(-size // BLOCK) * BLOCK)[:size]

    def skip(self, size: int) -> None:
        """Reads over `size` bytes and what fills up their last block."""
        left = -(-size // BLOCK) * BLOCK
        while left > 0:
            left -= len(self.read(min(left, 2**20)))

    @property
    def done(self) -> float:
        return min(1.0, self._file.tell() / self._size)
