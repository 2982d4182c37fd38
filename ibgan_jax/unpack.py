"""Unpacks what `ibgan_jax.pack` wrote: an archive, or all parts of one.

    python -m ibgan_jax.unpack FILE [FILE ...] --out=results/NAME

Nothing is written before every file of every archive has been read and is what its manifest says.
A file that is there already stays if it is the same, and stops it all if it differs. A run then
lies in the folder itself, several in folders of their own: `launch.py --pretrained=results/NAME`.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ibgan_jax.arguments import Parser, program
from ibgan_jax.data import archives
from ibgan_jax.data.entry import shown
from ibgan_jax.errors import UserError
from ibgan_jax.reports.figures import atomic
from ibgan_jax.training import manifest

Log = Callable[[str], Any]

#: What `ibgan_jax.pack` writes, and so nothing that runs or hides.
SUFFIXES = (".json", ".jsonl", ".npz", ".png", ".csv", ".md")


def unpack(files: Sequence[Path], out: Path, log: Log = print) -> list[Path]:
    """Writes the files of all archives into the folder `out` and returns the paths of new ones.

    Raises:
      UserError: an archive is missing, damaged, cut short or not one of `ibgan_jax.pack`; a file
        differs from the one that is there, or cannot be written.
    """
    seen: dict[str, bytes] = {}
    for name, content in _all(files):
        digest = hashlib.sha256(content).digest()
        if seen.setdefault(name, digest) != digest:
            raise UserError(f"two of the archives hold another {name}; unpack them one by one")
        _check_place(out, name, content)
    written = []
    sizes: Counter[Path] = Counter()
    for name, content in _all(files):
        path = out / name
        if path.exists():
            continue
        try:
            with atomic(path) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise UserError(f"cannot write {path} ({error.strerror})") from error
        written.append(path)
        folder = path.parent.parent if path.parent.name == "figures" else path.parent
        sizes[folder] += len(content)
    for folder, size in sizes.items():
        log(f"{folder}: {size / 1e6:.2f} MB")
    log(f"{out}: {len(written)} new files")
    return written


def _all(files: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        yield from contents(path)


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the files in an archive, each as the manifest before it says.

    Names are relative and never lead elsewhere.

    Raises:
      UserError: at the latest at its end, when the archive is damaged or another program's.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name an archive that ibgan_jax.pack wrote")
    left_out: Counter[str] = Counter()
    expected: dict[str, str] = {}
    foreign = f"{path} is not what ibgan_jax.pack writes"
    for entry in archives.entries(path, lambda name: True, left_out):
        name = PurePosixPath(entry.name)
        if left_out or entry.data is None:
            break
        if name.name == manifest.NAME:
            expected |= _listed(foreign, name.parent, entry.data)
            continue
        digest = expected.pop(str(name), None)
        if digest is None or name.suffix not in SUFFIXES:
            raise UserError(f"{foreign}: {shown(str(name))} does not belong in it")
        if digest != hashlib.sha256(entry.data).hexdigest():
            raise UserError(f"{path} is damaged: {name} is not what its {manifest.NAME} says")
        yield str(name), entry.data
    if left_out:
        raise UserError(f"{foreign}: it holds {', '.join(left_out)}")
    if expected:
        missing = shown(next(iter(expected)))
        raise UserError(f"{path} is damaged: {missing} is missing or cannot be read")


def _listed(foreign: str, folder: PurePosixPath, content: bytes) -> dict[str, str]:
    try:
        return {str(folder / name): digest for name, digest in manifest.listed(content).items()}
    except ValueError as error:
        raise UserError(f"{foreign}: {folder / manifest.NAME} is no manifest") from error


def _check_place(out: Path, name: str, content: bytes) -> None:
    path = out / name
    if not path.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{path} leads out of {out}")
    try:
        differs = path.exists() and path.read_bytes() != content
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror})") from error
    if differs:
        raise UserError(f"{path} is there and differs; choose another --out or remove it")


@program
def main(argv: Sequence[str]) -> None:
    """Unpacks the files that the arguments name."""
    parser = Parser(prog="python -m ibgan_jax.unpack", allow_abbrev=False)
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="results/NAME")
    given = parser.parse_args(argv)
    unpack(given.files, given.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
