"""Speed of reading prepared images, against decoding the same PNGs where they lie in memory.

    python -m benchmarks.images [--images=4096] [--resolution=64] [--rounds=9] [--json=FILE]

Rows: Pillow's `Image.open(...).load()` of the stored bytes in as many threads as the reader has
(`bare decoder`), `ImageReader.read` of the same images in the same random order (`read`), which
besides reads the records, checks them and gives one array, and the same as training streams it,
read ahead by two threads of Grain (`stream`). Each round runs every row once; the table gives
medians over the rounds and ratios of medians. The images are made up, about as large as faces.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grain
import numpy as np
from PIL import Image

from benchmarks.step import machine
from ibgan_jax.data import image_records, preparing

BATCHES = 640  # images a dispatch, as 10 steps of 64


def make_folder(folder: Path, count: int, side: int) -> None:
    """Photographs of a kind: waves with some noise, whose PNGs at 64 x 64 take some 8 kB."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side * 6
    for number in range(count):
        a, b, c = random.uniform(0.3, 2, (3, 3, 1, 1))
        waves = 127 + 80 * np.sin(a * x + b * y + 3 * c) + random.normal(0, 5, (3, side, side))
        image = Image.fromarray(waves.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
        # Every other one a JPEG, as folders are.
        image.save(folder / f"{number:06d}{('.png', '.jpg')[number % 2]}", quality=95)


def quiet(line: str) -> None:
    """What is said of the data is of no interest here."""


@contextmanager
def prepared_folder(count: int, side: int) -> Iterator[tuple[Path, preparing.Prepared, float]]:
    """(data directory, what was prepared, seconds) of `make_folder`'s images, for a while."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, directory = Path(temporary) / "folder", Path(temporary) / "data"
        folder.mkdir()
        make_folder(folder, count, side)
        start = time.perf_counter()
        prepared = preparing.prepare("folder", folder, directory, side, quiet)
        yield directory, prepared, time.perf_counter() - start


def rows(
    reader: image_records.ImageReader, order: np.ndarray, threads: int
) -> dict[str, Callable[[], object]]:
    """{name: a function that goes through the images of `order`}."""
    indices = order.tolist()
    encoded = [png for png, _ in reader._examples(indices)]
    pool = ThreadPoolExecutor(threads)
    dispatches = [indices[start : start + BATCHES] for start in range(0, len(indices), BATCHES)]

    share = -(-BATCHES // threads)

    def decode(start: int) -> None:
        for png in encoded[start : start + share]:
            Image.open(io.BytesIO(png)).load()

    def bare() -> None:
        list(pool.map(decode, range(0, len(encoded), share)))

    def read() -> None:
        for dispatch in dispatches:
            reader.read(dispatch)

    def stream() -> None:
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
        source = grain.MapDataset.range(len(dispatches)).map(lambda i: reader.read(dispatches[i]))
        for _ in source.to_iter_dataset(options):
            pass

    return {"bare decoder": bare, "read": read, "stream": stream}


def measure(programs: dict[str, Callable[[], object]], rounds: int, count: int) -> dict:
    """{name: {"images_per_s", "ratio", "cpu_us", "cpu_ratio"}} of one interleaved run.

    `cpu_us` is what all threads together take for an image; other programs disturb it less.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter(), time.process_time()
            program()
            taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    medians = {name: np.median(times[1:], axis=0) for name, times in taken.items()}
    wall, cpu = medians["bare decoder"]
    return {
        name: {
            "images_per_s": round(count / median[0]),
            "ratio": round(wall / median[0], 3),
            "cpu_us": round(1e6 * median[1] / count, 1),
            "cpu_ratio": round(cpu / median[1], 3),
        }
        for name, median in medians.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with prepared_folder(options.images, options.resolution) as (directory, prepared, seconds):
        reader = image_records.open_images("folder", directory, options.resolution)
        order = np.random.default_rng(1).permutation(len(reader))
        result = measure(rows(reader, order, reader.threads), options.rounds, len(order))
        size = sum(p.stat().st_size for p in prepared.directory.glob("*array_record*"))
    found = {
        "machine": machine(),
        "bytes_per_image": round(size / len(order)),
        "prepared_images_per_s": round(len(order) / seconds),
        "rows": result,
    }
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
