"""Packs what is worth keeping of trained runs: a few MB each instead of some 200.

    python -m ibgan_jax.pack RUN [RUN ...] --out=FILE.tar.gz [--part_mib=15]

RUN is a run's workdir or a folder of runs, such as a population or a study. Of each run it takes
config.json, metrics.jsonl, scores.json, figures/*.png, and weights.npz of the newest checkpoint,
also while training goes on; of a study its tables and rankings too. The same content gives the same
bytes. With --part_mib the output is FILE-0.tar, FILE-1.tar, ..., none of them larger, and every run
lies in one of them. `ibgan_jax.unpack` puts it all back.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import jax
from ml_collections import ConfigDict

from ibgan_jax import config as configs
from ibgan_jax.arguments import Parser, program
from ibgan_jax.errors import UserError
from ibgan_jax.reports.figures import atomic
from ibgan_jax.training import comparison, manifest, trained, weights
from ibgan_jax.training.run import template
from ibgan_jax.training.workdir import Workdir

Log = Callable[[str], Any]
Files = Mapping[str, bytes]  # name in its folder -> content

MIB = 2**20
_OF_A_FOLDER = ("study.json", "table.json", "table.csv", "table.md", "selection.json")
_ENDINGS = re.compile(r"\.(tar\.gz|tgz|tar)$")


@dataclasses.dataclass(frozen=True)
class Unit:
    """What goes into the archive as a whole: a run, or the files of a folder of runs.

    Attributes:
      name: of its folder in the archive; "" is the archive's root.
      read: gives its files.
    """

    name: str
    read: Callable[[], Files]


def pack(
    runs: Sequence[Path], out: Path, part_mib: int | None = None, log: Log = print
) -> list[Path]:
    """Writes the archive `out`, or its parts of at most `part_mib` MiB, and returns their paths.

    A file has its name only when it is whole. Parts of an earlier pack under the same name go.

    Raises:
      UserError: a path holds no run, two have one name, a checkpoint is damaged, no run has a
        checkpoint, one alone is larger than a part, or `out` cannot be written.
    """
    if part_mib is None and not out.name.endswith((".tar.gz", ".tgz")):
        raise UserError(f"--out={out} must end in .tar.gz")
    if part_mib is not None and part_mib < 1:
        raise UserError(f"--part_mib={part_mib} must be 1 or more")
    units = _units(runs, log)
    try:
        if part_mib is None:
            return [_write(out, units, log)]
        return _write_parts(out, units, part_mib * MIB, log)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror or error}") from error


def _units(paths: Sequence[Path], log: Log) -> list[Unit]:
    """Everything that is to be packed, in the order of `paths`."""
    names = [Path(path).resolve().name for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two of the paths are called {twice}; pack them one by one")
    units, count = [], 0
    for path, name in zip(paths, names, strict=True):
        root = "" if len(paths) == 1 else f"{name}/"
        found = comparison.find([path])
        single = found[0].path == Path(path)
        if not single:
            units.append(Unit(root, lambda path=path: _folder_files(path)))
        for workdir in found:
            place = root if single else f"{root}{workdir.path.name}/"
            if trained.steps(workdir):
                count += 1
            elif not workdir.diverged.exists():
                log(f"{workdir.path} holds no checkpoint yet: left out")
                continue
            units.append(Unit(place, lambda workdir=workdir: _run_files(workdir, log)))
    if not count:
        raise UserError("none of these runs has a checkpoint yet; train first")
    return units


def _folder_files(folder: Path) -> Files:
    """The files of a folder of runs that are about all of them."""
    files = {n: (folder / n).read_bytes() for n in _OF_A_FOLDER if (folder / n).is_file()}
    study = Workdir(folder).study.name
    if study in files:
        files[study] = _placeless(json.loads(files[study]))
    return files | _figures(folder)


def _run_files(workdir: Workdir, log: Log) -> Files:
    record = workdir.must_exist()
    files = {workdir.config.name: _placeless(record)}
    if workdir.metrics.exists():  # up to the last whole line: it may be growing
        content = workdir.metrics.read_bytes()
        files[workdir.metrics.name] = content[: content.rfind(b"\n") + 1]
    try:
        if workdir.read_scores() is not None:
            files[workdir.scores.name] = workdir.scores.read_bytes()
    except UserError as error:
        log(f"{error}; packed without it")
    if workdir.diverged.exists():
        files[workdir.diverged.name] = workdir.diverged.read_bytes()
    if trained.steps(workdir):
        files[workdir.weights.name] = _weights(workdir, record["config"], log)
    return files | _figures(workdir.path)


def _figures(folder: Path) -> Files:
    """Its pictures, without those of the progress in a folder of their own."""
    found = sorted((folder / "figures").glob("*.png"))
    return {f"figures/{path.name}": path.read_bytes() for path in found}


def _placeless(record: dict[str, Any]) -> bytes:
    """A record of config.json or study.json; where the data lie is a fact of the machine."""
    config = record["config"]
    if "dataset" in config:
        config = {**config, "dataset": {**config["dataset"], "dir": configs.DATA_DIR}}
    return json.dumps({**record, "config": config}, indent=2).encode()


def _weights(workdir: Workdir, config: dict[str, Any], log: Log) -> bytes:
    """The newest checkpoint as weights.npz, or the weights.npz that a folder has instead."""
    if trained.only_weights(workdir):
        return workdir.weights.read_bytes()
    model, shapes = template(ConfigDict(config))
    state = trained.checkpointed(shapes, workdir, None, log)
    return weights.pack(model, state.variables, int(state.step), config)


def _write(out: Path, units: Sequence[Unit], log: Log) -> Path:
    """One compressed archive of all units."""
    with (
        atomic(out) as temporary,
        _synced(temporary) as file,
        # Without a name and a time, so that the same content gives the same bytes.
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for unit in units:
            _add(tar, unit.name, unit.read())
    log(f"{out}: {out.stat().st_size / 1e6:.2f} MB")
    return out


def _write_parts(out: Path, units: Sequence[Unit], limit: int, log: Log) -> list[Path]:
    """Archives of at most `limit` bytes, in the order of the units."""
    stem = _ENDINGS.sub("", out.name)
    for old in out.parent.glob("*.tar"):
        if re.fullmatch(re.escape(stem) + r"-\d+\.tar", old.name):
            old.unlink()
    parts = []
    for number, content in enumerate(_parts(units, limit)):
        path = out.with_name(f"{stem}-{number}.tar")
        with atomic(path) as temporary, _synced(temporary) as file:
            file.write(content)
        log(f"{path}: {len(content) / 1e6:.2f} MB")
        parts.append(path)
    return parts


def _parts(units: Sequence[Unit], limit: int) -> Iterator[bytes]:
    part: dict[str, Files] = {}
    content = b""
    for unit in units:
        files = unit.read()
        grown = _tar({**part, unit.name: files})
        if len(grown) > limit and part:
            yield content
            part = {}
            grown = _tar({unit.name: files})
        if len(grown) > limit:
            raise UserError(
                f"{unit.name.rstrip('/') or 'the run'} alone makes {len(grown) / MIB:.1f} MiB, "
                f"more than --part_mib={limit // MIB}"
            )
        part[unit.name], content = files, grown
    yield content


def _tar(folders: Mapping[str, Files]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, files in folders.items():
            _add(tar, name, files)
    return file.getvalue()


def _add(tar: tarfile.TarFile, folder: str, files: Files) -> None:
    """The files of a folder behind their manifest, as of nobody and no time."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    listed = {manifest.NAME: manifest.listing(digests)} if files else {}
    for name, content in {**listed, **dict(sorted(files.items()))}.items():
        info = tarfile.TarInfo(folder + name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    """A file opened for writing; what is written is on disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@program
def main(argv: Sequence[str]) -> None:
    """Packs the runs that the arguments name."""
    parser = Parser(prog="python -m ibgan_jax.pack", allow_abbrev=False)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="FILE.tar.gz")
    parser.add_argument("--part_mib", type=int, help="the largest size of a part")
    given = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")  # an accelerator may be busy with training
    pack(given.runs, given.out, given.part_mib)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
