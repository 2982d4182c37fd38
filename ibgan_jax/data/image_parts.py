"""What a preparation has done so far: parts of some 1,000 converted images in a work folder.

A part is a SHA-256 of all that follows, the length of an index, the index (JSON) and the PNGs. It
is renamed into place when complete, so a process killed at any moment loses one part at most.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ibgan_jax.data.converting import Converted
from ibgan_jax.errors import UserError

PART_IMAGES = 1000
_PART_BYTES = 64 * 2**20  # held in memory until the part is written
_SETTINGS = "settings.json"
_HEAD = struct.Struct("<32sQ")


class Stored(NamedTuple):
    """Where a converted image lies."""

    key: str
    crc: int
    digest: str
    part: int
    offset: int
    size: int


class Parts:
    """The parts of one preparation, taken up where they end."""

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], log: Callable[[str], None]
    ) -> None:
        """Takes up what `folder` holds of a preparation with the same `settings`.

        What was made with others, and whatever follows a damaged part, is removed.
        """
        self._folder = folder
        self.keys: list[str] = []  # of all images, in the order of the archives
        self.images: list[Stored] = []
        self.skipped: list[tuple[str, str]] = []
        self._pending: list[Converted] = []
        self._pending_bytes = 0
        self._count = 0
        if not self._same(settings):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder / _SETTINGS, [json.dumps(settings).encode()])
        while (path := self._path(self._count)).exists() and self._take_up(path):
            self._count += 1
        for path in [*folder.glob("part-*")]:
            if int(path.name.removeprefix("part-").partition(".")[0]) >= self._count:
                path.unlink()
        if self.keys:
            log(f"going on after {len(self.keys):,} images that are already converted")

    def add(self, converted: Converted) -> None:
        """Keeps an image, or that it was skipped; on disk when its part is complete."""
        self._pending.append(converted)
        self._pending_bytes += len(converted.png)
        if len(self._pending) >= PART_IMAGES or self._pending_bytes > _PART_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is pending as a part of its own."""
        if not self._pending:
            return
        index, offset = [], 0
        for item in self._pending:
            index.append([item.key, item.crc, item.digest, offset, len(item.png), item.problem])
            offset += len(item.png)
        encoded = json.dumps(index).encode()
        rest = [encoded, *(item.png for item in self._pending)]
        digest = hashlib.sha256(struct.pack("<Q", len(encoded)))
        for data in rest:
            digest.update(data)
        head = _HEAD.pack(digest.digest(), len(encoded))
        _write(self._path(self._count), [head, *rest])
        self._record(index, _HEAD.size + len(encoded))
        self._count += 1
        self._pending, self._pending_bytes = [], 0

    def read(self, stored: Stored) -> bytes:
        """The PNG of an image. Raises UserError when it has been damaged since."""
        path = self._path(stored.part)
        with path.open("rb") as file:
            file.seek(stored.offset)
            png = file.read(stored.size)
        if zlib.crc32(png) != stored.crc:
            raise UserError(f"{path} was damaged while it was in use; start the same command again")
        return png

    def remove(self) -> None:
        """Removes the work folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, part: int) -> Path:
        return self._folder / f"part-{part:06d}"

    def _same(self, settings: Mapping[str, Any]) -> bool:
        try:
            return json.loads((self._folder / _SETTINGS).read_bytes()) == settings
        except (OSError, ValueError):
            return False

    def _take_up(self, path: Path) -> bool:
        """Records the images of a part; False if it is damaged."""
        data = path.read_bytes()
        if len(data) < _HEAD.size:
            return False
        digest, length = _HEAD.unpack_from(data)
        if hashlib.sha256(memoryview(data)[32:]).digest() != digest:
            return False
        self._record(json.loads(data[_HEAD.size : _HEAD.size + length]), _HEAD.size + length)
        return True

    def _record(self, index: list[list[Any]], start: int) -> None:
        for key, crc, digest, offset, size, problem in index:
            self.keys.append(key)
            if problem:
                self.skipped.append((key, problem))
            else:
                self.images.append(Stored(key, crc, digest, self._count, start + offset, size))


def _write(path: Path, data: list[bytes]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        for piece in data:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
