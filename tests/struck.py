"""Programs that a signal strikes: at any moment, or right before one of their file operations.

As a program (`struck.py WORD KIND NUMBER ARGUMENTS...`) this is tiny.py with ARGUMENTS, which sends
itself the signal KIND (0: none) before the NUMBER-th operation on a path with WORD in it. It says
"ready" when launch.py's handlers are in place, and at a good end how many operations there were.
"""

import atexit
import contextlib
import itertools
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
SECONDS = 300  # in which whatever is struck must have ended


@contextlib.contextmanager
def running(arguments, cache, word="", kind=0, number=0):
    """A process of this program that is ready; killed at the end if it still lives."""
    import tiny

    words = [str(word), str(int(kind)), str(number), *map(str, arguments)]
    process = tiny.start(words, cache, __file__)
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


def whole(arguments, cache, word):
    """(seconds, operations on paths with `word`) of a process that nothing strikes."""
    with running(arguments, cache, word) as process:
        start = time.monotonic()
        out, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, err) == (0, "")
        return time.monotonic() - start, int(out.splitlines()[-1].removeprefix("operations "))


def after(process, seconds, kind):
    """Sends `kind` after `seconds`, if there is anybody left; returns (status, errors)."""
    try:
        _, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(kind)
        _, err = process.communicate(timeout=SECONDS)
    return process.returncode, err


def _count(word, kind, number):
    """Counts from now on; the signal comes from within the operation that it precedes."""
    counted, last = itertools.count(1), [0]

    def note(event, arguments):
        if event in OPERATIONS and word in str(arguments[0]):
            last[0] = next(counted)
            if kind and last[0] == number:
                os.kill(os.getpid(), kind)

    sys.addaudithook(note)
    if not kind:
        atexit.register(lambda: print("operations", last[0]))


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]
    import launch

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, launch.interrupted)
    print("ready", flush=True)
    from ibgan_jax.data import image_parts

    image_parts.PART_IMAGES = 20  # so that a preparation has several
    word, kind, number, *rest = sys.argv[1:]
    sys.argv[1:] = rest
    _count(word, int(kind), int(number))
    runpy.run_path(str(Path(__file__).with_name("tiny.py")), run_name="__main__")
