"""Mutated images and archives against the reader of folders: only skips and UserError are allowed.

    python -m tests.fuzz_images [--seconds=600] [--seed=0] [--keep=DIR]

Each round takes an image of a valid kind, damages it (bits, runs of bytes, lengths, cuts, splices
of two), and decodes it; every fourth round also puts several into a folder, .zip, .tar or .tgz,
damages that too, and reads it as `prepare` does. No round may take longer than `LONGEST` seconds,
and all of them no more memory than `MOST_MEMORY`. What breaks a rule is written to `--keep` and
the exit status is 1. Not run by pytest; the last line says what was met how often.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ibgan_jax.data import archives, converting, folder
from ibgan_jax.data.decoding import UnreadableImageError, decode
from ibgan_jax.errors import UserError

LONGEST = 20  # seconds; an image of 64 million pixels takes some
# A few copies of an image of 64 million pixels at four bytes, and what the programs take.
MOST_MEMORY = 2 * 2**30
ADDRESS_SPACE = 8 * 2**30  # so that what takes too much fails here, not the machine


class TooLongError(BaseException):
    """Not an Exception, for the decoder takes those for damage."""


def seeds() -> list[bytes]:
    """Small valid images of all kinds."""
    found = []
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16"):
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        else:
            image = Image.fromarray(pixels).convert(mode)
        for kind, options in [
            ("PNG", {}),
            ("JPEG", {}),
            ("JPEG", {"progressive": True}),
            ("WEBP", {}),
            ("WEBP", {"lossless": True}),
            ("BMP", {}),
        ]:
            file = io.BytesIO()
            try:
                image.save(file, kind, **options)
            except (OSError, ValueError):
                continue  # not every kind has every mode
            found.append(file.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("PNG", "JPEG", "WEBP"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind, exif=exif, icc_profile=b"profile" * 30)
        found.append(file.getvalue())
    file = io.BytesIO()
    frames = [Image.fromarray(np.roll(pixels, n, 0)) for n in range(3)]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])
    found.append(file.getvalue())
    for array in (pixels, pixels.transpose(2, 0, 1)[None], pixels[..., 0]):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    return found


def mutated(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """`data` with one to eight kinds of damage."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        if not changed:
            break
        # Headers stand at the beginning, and most of what can go wrong with them.
        reach = chance.choice((32, 64, len(changed)))
        at = chance.randrange(min(reach, len(changed)))
        kind = chance.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[at] = chance.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            form = chance.choice(("<H", ">H", "<I", ">I"))
            most = 2 ** (8 * struct.calcsize(form)) - 1
            number = chance.choice((0, 1, 16_384, most // 2, most, chance.randrange(most)))
            changed[at : at + struct.calcsize(form)] = struct.pack(form, min(number, most))
        elif kind == 3:
            del changed[at : at + chance.randrange(1, 40)]
        elif kind == 4:
            changed[at:at] = chance.randbytes(chance.randrange(1, 40))
        elif kind == 5:
            del changed[at:]
        else:
            other = chance.choice(others)
            start = chance.randrange(max(1, len(other)))
            changed[at:] = other[start:]
    return bytes(changed)


def archive_of(images: list[bytes], place: Path, chance: random.Random) -> Path:
    """A folder or archive of `images` under odd names, itself damaged in three of four."""
    ends = (".png", ".jpg", ".webp", ".bmp", ".npy", ".PNG", ".txt")
    starts = ("", "a/", "../", "/", "./", "a/../", "C:", "é", "x" * 120, "\n")
    names = [
        f"{chance.choice(starts)}{number}{chance.choice(ends)}" for number in range(len(images))
    ]
    kind = chance.choice(("folder", "zip", "tar", "tgz"))
    path = place / kind
    if kind == "folder":
        path.mkdir()
        for number, image in enumerate(images):
            (path / f"{number}{chance.choice(ends)}").write_bytes(image)
        (path / "link.png").symlink_to("/dev/zero")
        return path
    if kind == "zip":
        method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, image in zip(names, images, strict=True):
                archive.writestr(name, image)
    else:
        mode = "w:gz" if kind == "tgz" else "w"
        form = chance.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
        with tarfile.open(path, mode, format=form) as archive:
            for name, image in zip(names, images, strict=True):
                info = tarfile.TarInfo(name)
                info.size = len(image)
                archive.addfile(info, io.BytesIO(image))
    if chance.randrange(4):
        data = path.read_bytes()
        path.write_bytes(mutated(data, [data], chance))
    return path


def try_image(data: bytes, chance: random.Random, met: Counter[str]) -> None:
    try:
        image = decode(data, chance.choice((1, 3)), orient=True)
    except UnreadableImageError:
        met["images refused"] += 1
    else:
        assert image.mode in ("L", "RGB")
        met["images read"] += 1


def try_archive(path: Path, met: Counter[str]) -> None:
    left_out: Counter[str] = Counter()
    try:
        wanted = lambda name: folder.key(name) is not None  # noqa: E731
        for entry in archives.entries(path, wanted, left_out):
            raw = converting.Raw(entry.name, entry.data, entry.problem, None, entry.done)
            converted = converting.convert(raw, "folder", 16)
            assert bool(converted.png) != bool(converted.problem)
            met["entries skipped" if converted.problem else "entries converted"] += 1
            assert converted.problem.isprintable()
    except UserError as error:
        assert "\n" not in str(error)
        met["archives refused"] += 1
    else:
        met["archives read through"] += 1
    met["entries left out"] += left_out.total()


def too_long(*_: object) -> None:
    raise TooLongError(f"more than {LONGEST} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, too_long)
    chance, images, met = random.Random(options.seed), seeds(), Counter[str]()
    slowest, broken, end = 0.0, 0, time.monotonic() + options.seconds
    while time.monotonic() < end:
        met["rounds"] += 1
        data = mutated(chance.choice(images), images, chance)
        with tempfile.TemporaryDirectory() as temporary:
            made: Path | None = None
            if met["rounds"] % 4 == 0:
                some = [mutated(chance.choice(images), images, chance) for _ in range(3)]
                made = archive_of([*some, chance.choice(images)], Path(temporary), chance)
            start = time.monotonic()
            signal.alarm(LONGEST)
            try:
                try_image(data, chance, met)
                if made is not None:
                    try_archive(made, met)
            except (Exception, TooLongError):
                broken += 1
                traceback.print_exc()
                options.keep.mkdir(exist_ok=True)
                (options.keep / f"{broken}-image").write_bytes(data)
                if made is not None and made.is_file():
                    (options.keep / f"{broken}-{made.name}").write_bytes(made.read_bytes())
            finally:
                signal.alarm(0)
            slowest = max(slowest, time.monotonic() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    broken += peak > MOST_MEMORY // 2**20
    counts = ", ".join(f"{number:,} {what}" for what, number in met.items())
    print(f"{broken} broken rules; {counts}; slowest {slowest:.2f} s, at most {peak:,} MiB")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
