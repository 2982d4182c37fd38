"""The files of a folder, .zip, .tar or .tgz, read one after the other in memory.

Archives come from strangers. Nothing is ever unpacked, so no name of theirs reaches the disk; even
so, names that leave their folder (absolute, or with `..`), links and devices are left out and
counted: no published archive has them, and one that does was not made by its owner. Sizes are
checked before memory is taken, so that an archive that decompresses without end costs nothing.
"""

from __future__ import annotations

import os
import stat
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ibgan_jax.data.entry import (
    ELSEWHERE,
    MAX_ENTRY_BYTES,
    DamagedArchiveError,
    Entry,
    Wanted,
    blamed_on,
    check_ratio,
    safe_name,
    shown,
    too_large,
)
from ibgan_jax.data.tar import BLOCK, read_tar
from ibgan_jax.errors import UserError, one_line


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
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is neither a folder nor a file")
    try:
        with path.open("rb") as file:
            start = file.read(BLOCK)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    if start.startswith(b"PK"):
        return _zip(path, wanted, left_out)
    if start.startswith(b"\x1f\x8b"):
        return read_tar(path, wanted, left_out, compressed=True)
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise DamagedArchiveError(
            f"{path} is no folder, .zip, .tar or .tgz: it starts with {shown(repr(start[:20]))}"
        ) from None
    return read_tar(path, wanted, left_out, compressed=False)


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
            yield Entry(name, None, too_large(status.st_size), done)
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
        raise OSError(0, too_large(len(data)))
    return data


def _zip(path: Path, wanted: Wanted, left_out: Counter[str]) -> Iterator[Entry]:
    size = path.stat().st_size
    with blamed_on(path):
        archive = zipfile.ZipFile(path)
    with archive:
        infos = archive.infolist()
        if sum(info.compress_size for info in infos) > size:
            raise UserError(f"{path} is no honest archive: its entries overlap")
        check_ratio(path, sum(info.file_size for info in infos), size)
        for number, info in enumerate(infos, 1):
            name, mode = safe_name(info.filename), info.external_attr >> 16
            if name is None:
                left_out[ELSEWHERE] += 1
            elif info.is_dir():
                continue
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                left_out[_kind(mode)] += 1
            elif wanted(name):
                yield Entry(name, *_unzipped(archive, info), number / len(infos))


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[bytes | None, str]:
    """(bytes, "") of one entry, or (None, what is wrong with it)."""
    if info.file_size > MAX_ENTRY_BYTES:
        return None, too_large(info.file_size)
    # The other methods decompress a whole block at once, however large it becomes.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None, "a compression other than deflate"
    try:
        with archive.open(info) as file:
            return file.read(MAX_ENTRY_BYTES), ""
    except Exception as error:  # BadZipFile, zlib.error, EOFError, RuntimeError (encrypted), ...
        return None, shown(one_line(error))
