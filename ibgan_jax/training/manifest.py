"""The manifest of a folder: the SHA-256 of every file in it, as `sha256sum -c SHA256SUMS` reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

NAME = "SHA256SUMS"


def write(directory: Path) -> None:
    """Writes the manifest of the files in `directory`; it is there whole or not at all."""
    lines, temporary = _lines(directory), directory / f"{NAME}.tmp"
    with temporary.open("wb") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(directory / NAME)
    descriptor = os.open(directory, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def listing(digests: Mapping[str, str]) -> bytes:
    """The manifest of files that have these digests: name -> SHA-256 in hexadecimal."""
    return b"".join(_line(digest, name) for name, digest in sorted(digests.items()))


def listed(content: bytes) -> dict[str, str]:
    """What a manifest lists: name -> digest. Raises ValueError where a line is none of its."""
    lines = content.decode().splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def lists(directory: Path, name: str, content: bytes) -> bool:
    """Whether the manifest of `directory` has `content` for the file `name`. Raises OSError."""
    line = _line(hashlib.sha256(content).hexdigest(), name)
    return line in (directory / NAME).read_bytes()


def find_damage(directory: Path) -> str | None:
    """None when the files in `directory` are exactly the manifest's, else what differs first."""
    try:
        actual, listed = _lines(directory), (directory / NAME).read_bytes()
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    if actual == listed:
        return None
    differing = sorted(set(actual.split(b"\n")) ^ set(listed.split(b"\n")), key=lambda x: x[66:])
    name = differing[0][66:].decode(errors="replace") if differing else ""
    return f"{name or NAME} is missing, added or not what {NAME} says"


def _line(digest: str, name: str) -> bytes:
    return f"{digest}  {name}\n".encode()


def _lines(directory: Path) -> bytes:
    """Returns what the manifest of `directory` must be: a line for every file but itself."""
    lines = []
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        if (name := path.relative_to(directory).as_posix()) != NAME:
            with path.open("rb") as file:
                lines.append(_line(hashlib.file_digest(file, "sha256").hexdigest(), name))
    return b"".join(lines)
