"""The files of a folder, .zip, .tar or .tgz, read one after the other in memory.

Archives come from strangers. Nothing is ever unpacked, so no name of theirs reaches the disk; even
so, names that leave their folder (absolute, or with `..`), links and devices are left out and
counted: no published archive has them, and one that does was not made by its owner. Sizes are
checked before memory is taken, so that an archive that decompresses without end costs nothing.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ibgan_jax.errors import UserError

MAX_ENTRY_BYTES = 128 * 2**20  # no image of the sets here comes near
# White renders stored raw shrink to a hundredth; a bomb to a thousandth.
MAX_RATIO = 250
MAX_HEADER_BYTES = 2**20
_FREE_BYTES = 2**28  # decompressed before the ratio counts
_BLOCK = 512
_LONGEST_NAME = 4096

Wanted = Callable[[str], bool]


class Entry(NamedTuple):
    """One file: its bytes, or None and the problem that kept them from being read."""

    name: str
    data: bytes | None
    problem: str
    done: float  # the share of the archive that has been read, in [0, 1]


def entries(path: Path, wanted: Wanted, left_out: Counter[str]) -> Iterator[Entry]:
    """The regular files of the folder or archive at `path` whose names are `wanted`, in its order.

    Names are relative, with "/" between their parts; those in a folder start with the folder's own,
    and a folder is read in the order of names. What `wanted` refuses is not read; it is asked once
    for each file. Links, devices and names that lead elsewhere are counted in `left_out`. A file
    that is too large or damaged has a problem, and the rest can still be read.

    Raises:
      UserError: there is nothing at `path`, it is no archive of a known kind, or it is cut short,
        damaged as a whole, or decompresses beyond all measure.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, wanted, left_out)
    try:
        with path.open("rb") as file:
            start = file.read(_BLOCK)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    if start.startswith(b"PK"):
        return _zip(path, wanted, left_out)
    if start.startswith(b"\x1f\x8b"):
        return _tar(path, wanted, left_out, compressed=True)
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise UserError(
            f"{path} is no folder, .zip, .tar or .tgz: it starts with {shown(repr(start[:20]))}"
        ) from None
    return _tar(path, wanted, left_out, compressed=False)


def safe_name(name: str) -> str | None:
    """`name` with "/" between its parts and no "." among them; None when it leads elsewhere."""
    parts = name.replace("\\", "/").split("/")
    if len(name) > _LONGEST_NAME or "\0" in name or ".." in parts or parts[0] == "":
        return None
    if parts[0][1:2] == ":":
        return None  # C:...
    return "/".join(part for part in parts if part not in ("", ".")) or None


def shown(name: str, longest: int = 100) -> str:
    """`name` for a message: what a terminal could take for an order is escaped; cut if long."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name[: longest + 1])
    return safe if len(safe) <= longest else safe[: longest - 3] + "..."


def files_of(folder: Path, left_out: Counter[str]) -> list[tuple[str, os.stat_result]]:
    """(name, status) of the regular files under `folder`, in the order of their names.

    Raises UserError when a folder cannot be listed.
    """
    found: list[tuple[str, os.stat_result]] = []
    folders = [(str(folder), Path(folder).resolve().name)]
    while folders:
        path, prefix = folders.pop()
        try:
            with os.scandir(path) as listing:
                for item in listing:
                    status = item.stat(follow_symlinks=False)
                    name = f"{prefix}/{item.name}"
                    if stat.S_ISDIR(status.st_mode):
                        folders.append((item.path, name))
                    elif stat.S_ISREG(status.st_mode):
                        found.append((name, status))
                    else:
                        left_out[_kind(status.st_mode)] += 1
        except OSError as error:
            raise UserError(f"{shown(path, 300)} cannot be read ({error.strerror})") from error
    return sorted(found, key=lambda item: item[0])


def _kind(mode: int) -> str:
    return "links" if stat.S_ISLNK(mode) else "devices"


def _folder(path: Path, wanted: Wanted, left_out: Counter[str]) -> Iterator[Entry]:
    files = files_of(path, left_out)
    for number, (name, status) in enumerate(files, 1):
        done = number / len(files)
        if not wanted(name):
            continue
        if status.st_size > MAX_ENTRY_BYTES:
            yield Entry(name, None, _too_large(status.st_size), done)
            continue
        try:
            data = _read_regular(path / name.partition("/")[2])
        except OSError as error:
            yield Entry(name, None, error.strerror or "cannot be read", done)
            continue
        yield Entry(name, data, "", done)


def _read_regular(path: Path) -> bytes:
    """The bytes of a file that may since have become a link, a pipe, or very large."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "no regular file")
        data = file.read(MAX_ENTRY_BYTES + 1)
    if len(data) > MAX_ENTRY_BYTES:
        raise OSError(0, _too_large(len(data)))
    return data


def _too_large(size: int) -> str:
    return f"{size:,} bytes, more than {MAX_ENTRY_BYTES:,}"


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Over damaged archives the standard library raises almost anything."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:
        reason = shown(" ".join(str(error).split()) or type(error).__name__)
        raise UserError(f"{path} is damaged or cut short ({reason})") from error


def _zip(path: Path, wanted: Wanted, left_out: Counter[str]) -> Iterator[Entry]:
    size = path.stat().st_size
    with _blamed_on(path):
        archive = zipfile.ZipFile(path)
    with archive:
        infos = archive.infolist()
        if sum(info.compress_size for info in infos) > size:
            raise UserError(f"{path} is no honest archive: its entries overlap")
        _check_ratio(path, sum(info.file_size for info in infos), size)
        for number, info in enumerate(infos, 1):
            name, mode = safe_name(info.filename), info.external_attr >> 16
            if info.is_dir():
                continue
            if name is None:
                left_out["names that lead elsewhere"] += 1
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                left_out[_kind(mode)] += 1
            elif wanted(name):
                yield Entry(name, *_unzipped(archive, info), number / len(infos))


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[bytes | None, str]:
    """(bytes, "") of one entry, or (None, what is wrong with it)."""
    if info.file_size > MAX_ENTRY_BYTES:
        return None, _too_large(info.file_size)
    # The other methods decompress a whole block at once, however large it becomes.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None, "a compression other than deflate"
    try:
        with archive.open(info) as file:
            return file.read(MAX_ENTRY_BYTES), ""
    except Exception as error:  # BadZipFile, zlib.error, EOFError, RuntimeError (encrypted), ...
        return None, shown(" ".join(str(error).split()) or type(error).__name__)


def _check_ratio(path: Path, decompressed: int, compressed: int) -> None:
    if decompressed > MAX_RATIO * compressed + _FREE_BYTES:
        raise UserError(
            f"{path} decompresses to more than {MAX_RATIO} times its size: no archive of images"
        )


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
        _check_ratio(self._path, self._count, self._file.tell())
        return data

    def padded(self, size: int, largest: int) -> bytes:
        """`size` bytes, read with what fills up their last block. Raises ValueError if too many."""
        if not 0 <= size <= largest:
            raise ValueError(f"a header of {size:,} bytes")
        return self.read(-(-size // _BLOCK) * _BLOCK)[:size]

    def skip(self, size: int) -> None:
        """Reads over `size` bytes and what fills up their last block."""
        left = -(-size // _BLOCK) * _BLOCK
        while left > 0:
            left -= len(self.read(min(left, 2**20)))

    @property
    def done(self) -> float:
        return min(1.0, self._file.tell() / self._size)


def _tar(path: Path, wanted: Wanted, left_out: Counter[str], compressed: bool) -> Iterator[Entry]:
    """Header by header, because `tarfile` takes a damaged header for the end and says nothing."""
    with path.open("rb") as file:
        stream = _Bounded(path, file, compressed)
        extended: dict[str, str] = {}  # what was said beforehand of the file that follows
        while True:
            with _blamed_on(path):
                header = stream.read(_BLOCK)
                if not any(header):
                    break
                info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
                if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
                    extended |= _extended(info.type, stream.padded(info.size, MAX_HEADER_BYTES))
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
                problem = "" if data is not None else _too_large(info.size)
                yield Entry(safe_name(info.name) or "", data, problem, stream.done)
        # To the very end, for only there stands the checksum of what was compressed.
        with _blamed_on(path):
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
    if not info.isreg() or any(key.startswith("GNU.sparse") for key in extended):
        return False
    name = safe_name(info.name)
    if name is None:
        left_out["names that lead elsewhere"] += 1
    return name is not None and wanted(name)


def _extended(kind: bytes, data: bytes) -> dict[str, str]:
    """What a GNU long name or a POSIX extended header says: "path", "size" and others."""
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
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        start = end
    return found
