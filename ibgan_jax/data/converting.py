"""From the bytes of a published image to the PNG that is kept, by processes that end with ours."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, resource_tracker
from typing import NamedTuple

import numpy as np

from ibgan_jax.data import image_sets, png
from ibgan_jax.data.decoding import UnreadableImageError, decode
from ibgan_jax.data.entry import shown
from ibgan_jax.data.published import Box
from ibgan_jax.errors import UserError

# What is sent to a process at once: enough to hide the sending, little enough to share well.
_CHUNK_IMAGES = 32
_CHUNK_BYTES = 4 * 2**20
_CHUNKS_AHEAD = 3  # for each process
_BYTES_AHEAD = 256 * 2**20


class Raw(NamedTuple):
    """An image as published: its bytes, or the problem that kept them from being read."""

    key: str
    data: bytes | None
    problem: str
    box: Box | None
    done: float  # the share of all archives read so far


class Converted(NamedTuple):
    """An image as kept: a PNG, its CRC-32 and the SHA-256 of its pixels; or what is wrong."""

    key: str
    png: bytes
    crc: int
    digest: str
    problem: str


Waiting = deque[tuple[list[Raw], Future[list[Converted]]]]


def convert(raw: Raw, name: str, resolution: int) -> Converted:
    """Decodes, crops, resizes and encodes an image of the set `name`.

    The resizing is Lanczos over all pixels that shrink into one, as in ID-GAN's public code; of the
    filters without aliasing it keeps most detail.
    """
    from PIL import Image

    image_set = image_sets.IMAGE_SETS[name]
    if raw.data is None:
        return Converted(raw.key, b"", 0, "", raw.problem)
    try:
        image = decode(raw.data, image_set.channels, image_set.orient)
        if raw.box is not None:
            image = image.crop(_inside(raw.box, image.size))
        image = image_set.crop(image).resize((resolution, resolution), Image.Resampling.LANCZOS)
    except UnreadableImageError as error:
        return Converted(raw.key, b"", 0, "", shown(str(error)))
    pixels = np.asarray(image).reshape(resolution, resolution, image_set.channels)
    encoded = png.encode(pixels)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Converted(raw.key, encoded, zlib.crc32(encoded), digest, "")


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """`box`, if it lies in an image of `size`: Pillow would fill up what is outside with black."""
    left, top, right, bottom = box
    if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise UnreadableImageError(f"its box {box} is not inside its {size[0]} x {size[1]} pixels")
    return box


def convert_all(
    raws: Iterable[Raw], name: str, resolution: int, workers: int
) -> Iterator[tuple[Converted, float]]:
    """(each image converted, the share of the archives read), in their order.

    With one worker in this process, else in so many of their own, which read ahead only so far that
    memory stays bounded. They end with this process however it ends.
    Raises UserError when a process dies, as when memory is short.
    """
    if workers == 1:
        for raw in raws:
            yield convert(raw, name, resolution), raw.done
        return
    _start_tracker()
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    waiting: Waiting = deque()
    try:
        for chunk in _chunks(raws):
            waiting.append((chunk, pool.submit(_convert_chunk, chunk, name, resolution)))
            while len(waiting) > workers * _CHUNKS_AHEAD or _bytes(waiting) > _BYTES_AHEAD:
                yield from _finished(*waiting.popleft())
        while waiting:
            yield from _finished(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_tracker() -> None:
    """Starts the process that frees the pool's semaphores should this one be killed, silenced.

    It would follow our own line about the end with a warning that it freed them.
    """
    sys.warnoptions.append("ignore")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove("ignore")


def _bytes(waiting: Waiting) -> int:
    return sum(len(raw.data or b"") for chunk, _ in waiting for raw in chunk)


def _finished(
    chunk: list[Raw], future: Future[list[Converted]]
) -> Iterator[tuple[Converted, float]]:
    try:
        results = future.result()
    except BrokenProcessPool as error:
        names = f"{shown(chunk[0].key)} to {shown(chunk[-1].key)}"
        raise UserError(
            f"a process died while it or another decoded {names}: too little memory, or an image "
            "that no program should open; the same command goes on from there"
        ) from error
    yield from zip(results, (raw.done for raw in chunk), strict=True)


def _chunks(raws: Iterable[Raw]) -> Iterator[list[Raw]]:
    chunk: list[Raw] = []
    size = 0
    for raw in raws:
        chunk.append(raw)
        size += len(raw.data or b"")
        if len(chunk) == _CHUNK_IMAGES or size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _convert_chunk(chunk: list[Raw], name: str, resolution: int) -> list[Converted]:
    return [convert(raw, name, resolution) for raw in chunk]


def _end_with_parent() -> None:
    """Leaves Ctrl-C to the parent, and watches for the parent's end, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
