"""Mean and covariance of features that stream by, in float64, and their keeping on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ibgan_jax.errors import UserError

FeaturesOf = Callable[[jax.Array], jax.Array]

# Features that are put together before their products are summed: a sum [d, d] is large.
ROWS_AT_ONCE = 1000
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Statistics:
    """The first two moments of features, in float64.

    Attributes:
      count: how many were seen, N.
      mean: [d].
      scatter: [d, d], the sum of outer products of what remains without the mean.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @property
    def covariance(self) -> np.ndarray:
        """[d, d], divided by N - 1."""
        return self.scatter / (self.count - 1)

    def __add__(self, other: Statistics) -> Statistics:
        """Of both sets together (Chan et al. 1979); nothing large is subtracted."""
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = np.outer(shift, shift) * (self.count * other.count / count)
        return Statistics(count, mean, self.scatter + other.scatter + between)

    def __sub__(self, part: Statistics) -> Statistics:
        """Of the set without a smaller part of it: `(a + b) - b` is `a`."""
        count = self.count - part.count
        mean = self.mean + (self.mean - part.mean) * (part.count / count)
        shift = part.mean - mean
        between = np.outer(shift, shift) * (count * part.count / self.count)
        return Statistics(count, mean, self.scatter - part.scatter - between)


def statistics_of(
    features_of: FeaturesOf, batches: Iterable[jax.Array], rows_at_once: int = ROWS_AT_ONCE
) -> Statistics:
    """Mean and covariance of the features of batches of images [B, H, W, C], seen once, in order.

    Memory does not grow with the number of images.

    Raises:
      UserError: no images, or the features are not finite [B, d].
    """
    total, waiting = None, []
    for features in _one_behind(map(features_of, batches)):
        waiting.append(_checked(features))
        if sum(map(len, waiting)) >= rows_at_once:
            total, waiting = _with(total, waiting), []
    if waiting:
        total = _with(total, waiting)
    if total is None:
        raise UserError("there are no images to take statistics of")
    return total


def _one_behind(items: Iterable[jax.Array]) -> Iterator[jax.Array]:
    """Each item once the next is asked for: the device never waits, nor do images pile up."""
    waiting = None
    for item in items:
        if waiting is not None:
            yield waiting
        waiting = item
    if waiting is not None:
        yield waiting


def _checked(features: jax.Array) -> np.ndarray:
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
        raise UserError(f"features must be finite [B, d]; got shape {x.shape}, or not finite")
    return x


def _with(total: Statistics | None, parts: list[np.ndarray]) -> Statistics:
    """`total` and features [B, d] of some batches."""
    x = np.concatenate(parts)
    mean = x.mean(axis=0)
    batch = Statistics(len(x), mean, (x - mean).T @ (x - mean))
    return batch if total is None else total + batch


# ------------------------------------------------------------------------------------ on the disk


def kept(
    folder: Path | None,
    key: Mapping[str, Any],
    make: Callable[[], Statistics],
    log: Callable[[str], Any] = print,
) -> Statistics:
    """What `make` gives, kept in `folder` under `key` for the next time; None keeps nothing.

    Only a file of exactly this key (names, numbers and lists, no dicts) is read, and only if its
    checksum holds: a damaged one is made anew, and so is one that cannot be read. Files appear
    whole or not at all. Where none can be written that is said in a line, and the value returned.
    """
    if folder is None:
        return make()
    said = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    path = folder / f"statistics-{hashlib.sha256(said.encode()).hexdigest()[:32]}.bin"
    try:
        return _unpacked(path.read_bytes(), said)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log(f"statistics in {path} are made anew: {error}")
    made = make()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(path, _packed(made, said))
    except OSError as error:
        log(
            f"statistics cannot be kept in {folder} ({error.strerror}); they were made all the same"
        )
    return made


def _packed(statistics: Statistics, key: str) -> bytes:
    """A line of SHA-256 of all that follows, one of the key, then count, width, mean, scatter."""
    numbers = np.array([statistics.count, len(statistics.mean)], "<i8").tobytes()
    moments = [np.asarray(x, "<f8").tobytes() for x in (statistics.mean, statistics.scatter)]
    body = b"".join([key.encode(), b"\n", numbers, *moments])
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _unpacked(content: bytes, key: str) -> Statistics:
    """Raises ValueError when it is not what `_packed` made with this key."""
    checksum, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise ValueError("its checksum does not hold")
    said, _, rest = body.partition(b"\n")
    if said.decode() != key:
        raise ValueError("it is about other images")
    count, width = np.frombuffer(rest, "<i8", 2).tolist()
    mean = np.frombuffer(rest, "<f8", width, 16)
    scatter = np.frombuffer(rest, "<f8", width * width, 16 + 8 * width)
    return Statistics(count, mean, scatter.reshape(width, width))


def _replace(path: Path, content: bytes) -> None:
    """Writes the whole file under another name first."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
