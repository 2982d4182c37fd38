"""What a set of images is made of: the files its owner publishes and how they are to be read."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ibgan_jax.data.archives import files_of
from ibgan_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

_ENDS = 2**20
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are outside


@dataclass(frozen=True)
class PublishedFile:
    """A file, how large it is, and where its owner publishes it."""

    name: str
    size: str
    where: str
    needed: bool = True

    def __str__(self) -> str:
        wanted = "" if self.needed else "; optional"
        return f"{self.name} ({self.size}, {self.where}{wanted})"


def no_labels(keys: Sequence[str]) -> NDArray[np.int32]:
    """int32 [len(keys), 0]."""
    return np.zeros((len(keys), 0), np.int32)


@dataclass(frozen=True)
class Source:
    """What was found at the path that a user named.

    archives: folders or archives of images, in the order of reading.
    notes: the annotation files that were read.
    key: the name of a file in an archive -> the name its image is sorted by, None: not an image.
    labels: all keys that were written, sorted -> int32 [n, len(label_names)].
    boxes: key -> the part of the image that is kept, for sets that have such a thing.
    """

    archives: tuple[Path, ...]
    key: Callable[[str], str | None]
    notes: tuple[Path, ...] = ()
    label_names: tuple[str, ...] = ()
    labels: Callable[[Sequence[str]], NDArray[np.int32]] = no_labels
    boxes: Mapping[str, Box] = field(default_factory=dict)

    def stamp(self, times: bool) -> str:
        """A digest that tells this source from another without reading it through.

        Of archives and notes: names, sizes and both ends (in a .zip the last one holds the
        checksums of all files); of the images in a folder: names, sizes and times of change. With
        `times` those of archives and notes count too. Raises UserError for what cannot be read.
        """
        digest = hashlib.sha256()
        for path in (*self.archives, *self.notes):
            if path.is_dir():
                images = path in self.archives
                for name, status in files_of(path, Counter()):
                    if not images or self.key(name) is not None:
                        said = f"{name!a} {status.st_size} {status.st_mtime_ns}\n"
                        digest.update(said.encode())
                continue
            try:
                with path.open("rb") as file:
                    status = os.fstat(file.fileno())
                    ends = file.read(_ENDS)
                    file.seek(max(0, status.st_size - _ENDS))
                    ends += file.read(_ENDS)
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror})") from error
            said = f"{path.name!a} {status.st_size} {status.st_mtime_ns if times else ''}\n"
            digest.update(said.encode() + hashlib.sha256(ends).digest())
        return digest.hexdigest()


@dataclass(frozen=True)
class ImageSet:
    """A data set of images.

    channels: 1 (grey) or 3 (RGB).
    resolutions: those it can be prepared at, the default first.
    about: a line for a report.
    files: what its owner publishes.
    find: the path a user named -> what is there; raises UserError.
    crop: a whole image -> the square that is resized; raises UnreadableImageError.
    orient: whether an EXIF orientation is applied.
    """

    name: str
    channels: int
    resolutions: tuple[int, ...]
    about: str
    files: tuple[PublishedFile, ...]
    find: Callable[[Path], Source]
    crop: Callable[[Image.Image], Image.Image]
    orient: bool = False

    @property
    def expected(self) -> str:
        """What it is prepared from, for a message."""
        return ", ".join(str(file) for file in self.files)


def centre(image: Image.Image, side: int) -> Image.Image:
    """The `side` x `side` pixels in the middle. Raises UnreadableImageError if there are fewer."""
    from ibgan_jax.data.decoding import UnreadableImageError

    width, height = image.size
    if min(width, height) < side:
        raise UnreadableImageError(
            f"{width} x {height} pixels where at least {side} x {side} are expected"
        )
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def locate(path: Path, name: str, unpacked: str | None = None) -> Path | None:
    """The file `name` at, in, or one folder below `path`; or the folder it was `unpacked` to.

    Owners group their files ("Img/", "Anno/"), and a path may name one file beside the others.
    """
    path = Path(path)
    around = path if path.is_dir() else path.parent
    for sought in filter(None, (name, unpacked)):
        if path.resolve().name == sought and path.exists():
            return path
        for found in (around / sought, *sorted(around.glob(f"*/{sought}"))):
            if found.exists():
                return found
    return None


def must_exist(path: Path) -> None:
    """Raises UserError when there is nothing at `path`."""
    if not Path(path).exists():
        raise UserError(f"no file or folder {path}; --archives=PATH names what is to be prepared")


def missing(path: Path, name: str, file: str, files: Sequence[PublishedFile]) -> UserError:
    """What to raise when `file` is not at `path`: what is expected, from where, how large."""
    return UserError(
        f"{path} holds no {file}; {name} is prepared from {', '.join(map(str, files))}"
    )
