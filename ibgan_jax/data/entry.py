"""What is told of a file in an archive, and the limits that hold for all kinds of archives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ibgan_jax.errors import UserError, one_line

MAX_ENTRY_BYTES = 128 * 2**20  # no image of the sets here comes near
# White renders stored raw shrink to a hundredth; a bomb to a thousandth.
MAX_RATIO = 250
_FREE_BYTES = 2**28  # decompressed before the ratio counts
_LONGEST_NAME = 4096
ELSEWHERE = "names that lead elsewhere"

Wanted = Callable[[str], bool]


class DamagedArchiveError(UserError):
    """Nothing that was read from this archive can be trusted."""


class Entry(NamedTuple):
    """One file: its bytes, or None and the problem that kept them from being read."""

    name: str
    data: bytes | None
    problem: str
    done: float  # the share of the archive that has been read, in [0, 1]


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


def too_large(size: int) -> str:
    """Why a file of `size` bytes is not read."""
    return f"{size:,} bytes, more than {MAX_ENTRY_BYTES:,}"


@contextmanager
def blamed_on(path: Path) -> Iterator[None]:
    """Over damaged archives the standard library raises almost anything."""
    try:
        yield
    except (UserError, GeneratorExit):
        raise
    except Exception as error:
        reason = shown(one_line(error))
        raise DamagedArchiveError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged or cut short: {reason}"
        ) from error


def check_ratio(path: Path, decompressed: int, compressed: int) -> None:
    """Raises UserError when so many bytes came out of so few."""
    if decompressed > MAX_RATIO * compressed + _FREE_BYTES:
        raise UserError(
            f"{path} decompresses to more than {MAX_RATIO} times its size: no archive of images"
        )
