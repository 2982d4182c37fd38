"""Sets of images made ready once: read as published, cropped, resized, and kept as ArrayRecord.

First the images are converted in the order of the archives, in parallel, into parts from which an
interrupted preparation goes on; then they are written in the order of their names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from ibgan_jax.data import archives as reading
from ibgan_jax.data import image_records, image_sets, packed
from ibgan_jax.data.converting import Raw, convert_all
from ibgan_jax.data.entry import DamagedArchiveError, shown
from ibgan_jax.data.image_parts import Parts
from ibgan_jax.data.image_writing import write
from ibgan_jax.data.published import ImageSet, Source, must_exist
from ibgan_jax.errors import UserError

Log = Callable[[str], None]

RECIPE = 1  # to be raised when the same source gives other images
MAX_SKIPPED = 0.01
_HOPELESS = 1000  # after so many, if half cannot be read, the rest is not tried
_NAMED = 5
_NAMES_KEPT = 1000


@dataclass(frozen=True)
class Prepared:
    """What lies in `directory`: images written, and those skipped because they are unreadable.

    `left_out` counts what was not meant to be read: links, odd names, boxes that are too small.
    `names` are those of the skipped, the first thousand.
    """

    directory: Path
    written: int
    skipped: int
    names: tuple[str, ...]
    left_out: dict[str, int]


def prepare(
    name: str,
    archives: Path,
    directory: Path,
    resolution: int,
    log: Log = print,
    workers: int | None = None,
) -> Prepared:
    """Prepares the images of the set `name` at `archives` under `directory`, once.

    The result is the same for any number of `workers` (processes; by default one for each core), in
    whatever order an archive holds its files, and whether or not it was interrupted: a killed
    preparation is taken up where it was. A script that calls this needs the usual
    `if __name__ == "__main__":`, for the processes import it.
    Raises UserError for an unknown name or resolution, missing, wrong or damaged archives, when
    more than 1 % of the images cannot be read, when `directory` cannot be written, or when it
    already holds this set from another source.
    """
    image_set = image_sets.get(name, resolution)
    if workers is not None and workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    archives, directory = Path(archives), Path(directory)
    must_exist(archives)
    with _expecting(image_set):
        source = image_set.find(archives)
    stamp = source.stamp(times=False)
    home = image_records.home(name, directory, resolution)
    work = home.parent / "preparing"
    if home.exists():
        shutil.rmtree(work, ignore_errors=True)  # of one that was killed when all was done
        return _as_before(home, stamp, log)
    packed.check_writable(home.parent, needed=packed.SPARE_BYTES)
    settings = {
        "recipe": RECIPE,
        "set": f"{name}-{resolution}",
        "source": stamp,
        "changed": source.stamp(times=True),
        "pillow": _pillow_version(),
    }
    with packed.explained(home.parent), _alone(home.parent):
        if home.exists():  # by a process that has just finished
            return _as_before(home, stamp, log)
        parts = Parts(work, settings, log)
        with _expecting(image_set):
            left_out = _convert(source, image_set, resolution, parts, log, workers)
        _check_skipped(parts, archives, image_set)
        result = Prepared(
            directory=home,
            written=len(parts.images),
            skipped=len(parts.skipped),
            names=tuple(shown(key) for key, _ in parts.skipped[:_NAMES_KEPT]),
            left_out=dict(left_out),
        )
        noted = asdict(result) | {"source": stamp, "recipe": RECIPE}
        del noted["directory"]
        write(home, parts, source, image_set, resolution, noted, log)
        parts.remove()
    log(_summary(result))
    return result


def _as_before(home: Path, stamp: str, log: Log) -> Prepared:
    metadata = image_records.read_metadata(home)
    if metadata["source"] != stamp or metadata["recipe"] != RECIPE:
        raise UserError(
            f"{home} was prepared from another source, or has changed since; "
            "choose another --config.dataset.dir, or remove that directory"
        )
    result = Prepared(
        directory=home,
        written=metadata["written"],
        skipped=metadata["skipped"],
        names=tuple(metadata["names"]),
        left_out=metadata["left_out"],
    )
    log(f"already prepared: {_summary(result)}")
    return result


def _summary(result: Prepared) -> str:
    text = f"{result.written:,} images in {result.directory}, {result.skipped:,} skipped"
    if result.names:
        more = ", ..." if result.skipped > _NAMED else ""
        text += f" as unreadable ({', '.join(result.names[:_NAMED])}{more})"
    for what, count in sorted(result.left_out.items()):
        text += f"; {count:,} {what} left out"
    return text


def _pillow_version() -> str:
    import PIL

    return PIL.__version__


@contextmanager
def _expecting(image_set: ImageSet) -> Iterator[None]:
    """Says with what is wrong about an archive what should be there instead."""
    try:
        yield
    except DamagedArchiveError as error:
        raise UserError(f"{error}; expected is {image_set.expected}") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps a second preparation of the same set out. Raises UserError when there is one."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is preparing {folder}; wait for it") from None
        # Nobody else is at work here, so what TFDS left behind was killed.
        for leftover in folder.glob("incomplete.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def _convert(
    source: Source,
    image_set: ImageSet,
    resolution: int,
    parts: Parts,
    log: Log,
    workers: int | None,
) -> Counter[str]:
    """Adds to `parts` what they lack of the images in `source`; what was left out, counted."""
    left_out: Counter[str] = Counter()
    with _Progress(len(parts.keys), len(parts.skipped), log) as progress:
        raws = _raws(source, resolution, parts.keys[:], left_out)
        processes = workers or os.cpu_count() or 1
        results = convert_all(raws, image_set.name, resolution, processes)
        try:
            with contextlib.closing(results):
                for converted, done in results:
                    parts.add(converted)
                    progress.at(done, bool(converted.problem))
                    if progress.images == _HOPELESS and progress.skipped > _HOPELESS / 2:
                        break
        except DamagedArchiveError:
            parts.remove()  # a sound copy may well have the same name, size and time
            raise
        parts.flush()
    return left_out


def _raws(
    source: Source, resolution: int, known: Sequence[str], left_out: Counter[str]
) -> Iterator[Raw]:
    """The images of `source` after the first ones, whose keys are `known`."""
    seen: dict[str, Path] = {}
    sizes = [1 if path.is_dir() else path.stat().st_size for path in source.archives]
    key = ""

    def wanted(name: str) -> bool:
        nonlocal key
        key = source.key(name)
        if key is None:
            return False
        box = source.boxes.get(key)
        if box is not None and min(box[2] - box[0], box[3] - box[1]) < resolution:
            left_out["boxes smaller than the resolution"] += 1
            return False
        if key in seen:
            raise UserError(f"{path} holds {shown(key)} again; it is also in {seen[key]}")
        seen[key] = path
        if len(seen) > len(known):
            return True
        if known[len(seen) - 1] != key:
            raise UserError(f"{path} has changed while it was being prepared; start again")
        return False

    for number, path in enumerate(source.archives):
        before = sum(sizes[:number])
        for entry in reading.entries(path, wanted, left_out):
            done = (before + entry.done * sizes[number]) / sum(sizes)
            yield Raw(key, entry.data, entry.problem, source.boxes.get(key), done)


def _check_skipped(parts: Parts, archives: Path, image_set: ImageSet) -> None:
    """Raises UserError, and removes the parts, when too few images could be read."""
    count, skipped = len(parts.keys), len(parts.skipped)
    if count and len(parts.images) and skipped <= MAX_SKIPPED * count:
        return
    parts.remove()
    if not count:
        raise UserError(
            f"{archives} holds no images of the set {image_set.name}; expected is "
            f"{image_set.expected}"
        )
    named = ", ".join(f"{shown(key)} ({why})" for key, why in parts.skipped[:_NAMED])
    raise UserError(
        f"{skipped:,} of {count:,} images of {archives} cannot be read, more than 1 %: {named}; "
        f"expected is {image_set.expected}"
    )


class _Progress:
    """A bar on a terminal, else a line for each tenth of the archives."""

    def __init__(self, images: int, skipped: int, log: Log) -> None:
        self.images, self.skipped, self._log, self._tenth = images, skipped, log, 0
        self._bar = _bar() if sys.stderr.isatty() else None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def at(self, done: float, skipped: bool) -> None:
        """One more image, after which `done` of the archives have been read."""
        self.images += 1
        self.skipped += skipped
        says = f"{self.images:,} images, {self.skipped:,} skipped"
        if self._bar is not None:
            self._bar.set_postfix_str(says, refresh=False)
            self._bar.update(done - self._bar.n)
        elif int(done * 10) > self._tenth:
            self._tenth = int(done * 10)
            self._log(f"{self._tenth * 10} % of the archives read: {says}")


def _bar() -> tqdm:
    layout = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
    return tqdm(total=1.0, bar_format=layout, dynamic_ncols=True, file=sys.stderr)
