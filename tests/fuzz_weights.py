"""Damages small files of weights at random and reads them: `python -m tests.fuzz_weights`.

    python -m tests.fuzz_weights [--seconds=600] [--seed=0]

Only two ends are allowed: a UserError of one line, or arrays that lie inside the file, which then
are fitted to a network, or refused for it. Anything else is printed with the file, and the status
is 1. It needs PyTorch, which writes the files to begin with.
"""

import argparse
import collections
import io
import itertools
import pickletools
import resource
import sys
import time
import zipfile
import zlib

import jax
import numpy as np

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.inception import variables_of
from ibgan_jax.metrics.torch_file import read_state_dict

SLOWEST = 2.0  # seconds for one file of some kilobytes; usual are 0.0003
SHAPES = {("conv", "kernel"): (3, 3, 2, 4), ("bn", "scale"): (4,), ("bn", "bias"): (4,)}
OPCODES = [code.code.encode("latin-1") for code in pickletools.opcodes]
# What an attacker would put in place of a name.
NAMES = (b"cos\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nexec\n", b"csubprocess\nPopen\n")
NUMBERS = (
    b"J\xff\xff\xff\x7f",
    b"J\xff\xff\xff\xff",
    b"K\x00",
    b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
)


def wanted():
    """The variables of a network of one layer, as shapes."""
    params = {}
    for (module, name), shape in SHAPES.items():
        params.setdefault(module, {})[name] = jax.ShapeDtypeStruct(shape, np.float32)
    stats = {name: jax.ShapeDtypeStruct((4,), np.float32) for name in ("mean", "var")}
    return {"params": {"layer": params}, "batch_stats": {"layer": {"bn": stats}}}


def seeds(zipped):
    """Valid files: of the layer, and of tensors that are views."""
    import torch

    layer = torch.nn.Sequential()
    layer.add_module("layer", torch.nn.Sequential())
    layer.layer.add_module("conv", torch.nn.Conv2d(2, 4, 3, bias=False))
    layer.layer.add_module("bn", torch.nn.BatchNorm2d(4))
    shared = torch.arange(24.0).reshape(4, 6)
    files = []
    for state in (layer.state_dict(), {"a": shared.T[1:], "b": shared[2], "c": torch.zeros(0)}):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=zipped)
        files.append(file.getvalue())
    return files


def pickle_bounds(content):
    """Where the state dict's pickle lies in a file of the older format: [start, end)."""
    file = io.BytesIO(content)
    for _ in range(3):
        collections.deque(pickletools.genops(file), maxlen=0)
    start = file.tell()
    collections.deque(pickletools.genops(file), maxlen=0)
    return start, file.tell()


def rewritten(content, change):
    """The file with `change(pickle)` for its pickle, checksums and sizes put right."""
    if content[:2] != b"PK":
        start, end = pickle_bounds(content)
        return content[:start] + change(content[start:end]) + content[end:]
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            body = old.read(name)
            new.writestr(name, change(body) if name.endswith("data.pkl") else body)
    return out.getvalue()


def edited(pickled, rng):
    """A pickle with some operations dropped, doubled, swapped, replaced or inserted."""
    places = [at for _, _, at in pickletools.genops(pickled)] + [len(pickled)]
    parts = [pickled[a:b] for a, b in itertools.pairwise(places)]
    for _ in range(rng.integers(1, 4)):
        i, j = rng.integers(0, len(parts), 2)
        kind = rng.integers(0, 7)
        if kind == 0:
            del parts[i]
        elif kind == 1:
            parts.insert(i, parts[j])
        elif kind == 2:
            parts[i], parts[j] = parts[j], parts[i]
        elif kind == 3:
            parts[i] = OPCODES[rng.integers(len(OPCODES))] + parts[i][1:]
        elif kind == 4:
            parts.insert(i, OPCODES[rng.integers(len(OPCODES))])
        elif kind == 5:
            parts.insert(i, NAMES[rng.integers(len(NAMES))] + b")R")
        else:
            parts[i] = NUMBERS[rng.integers(len(NUMBERS))]
        if not parts:
            break
    return b"".join(parts)


def flipped(content, rng):
    """One to eight bits of it, or bytes, are others."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9) if content else 0):
        at = rng.integers(len(changed))
        changed[at] = (
            changed[at] ^ (1 << rng.integers(8)) if rng.random() < 0.7 else rng.integers(256)
        )
    return bytes(changed)


def mutated(content, rng):
    """A damaged copy of a valid file."""
    kind = rng.integers(0, 6)
    if kind == 0:
        return flipped(content, rng)
    if kind == 1:
        return content[: rng.integers(len(content))]
    if kind == 2:
        a, b = sorted(rng.integers(0, len(content), 2))
        return content[:a] + content[b:]
    if kind == 3:
        a, b = sorted(rng.integers(0, len(content), 2))
        return content[:b] + content[a:]
    # Behind the checksums of an archive, where damage by chance does not come.
    return rewritten(content, lambda body: (edited if kind == 4 else flipped)(body, rng))


def end_of(content, shapes):
    """ "refused", "read" or "fits"; raises AssertionError or whatever the reader let through."""
    try:
        arrays = read_state_dict(content, "some.pth")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 300, str(error)
        return "refused"
    assert type(arrays) is dict
    for name, array in arrays.items():
        assert type(name) is str and type(array) is np.ndarray
        assert array.nbytes <= len(content) and not array.flags.writeable
        zlib.crc32(np.ascontiguousarray(array))  # every number can be reached
    try:
        found = variables_of(arrays, shapes, "some.pth")
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 300, str(error)
        return "read"
    assert jax.tree.map(np.shape, found) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    return "fits"


def fuzz(files, seed, rounds=None, seconds=None):
    """Counts of how it ended; raises RuntimeError with the file that ended otherwise."""
    rng, counts, shapes = np.random.default_rng(seed), collections.Counter(), wanted()
    assert all(end_of(content, shapes) != "refused" for content in files)
    stop = time.monotonic() + (seconds or float("inf"))
    while time.monotonic() < stop and sum(counts.values()) != rounds:
        content = mutated(files[rng.integers(len(files))], rng)
        started = time.process_time()
        try:
            counts[end_of(content, shapes)] += 1
        except Exception as error:
            raise RuntimeError(f"{type(error).__name__} from {content!r}") from error
        if time.process_time() - started > SLOWEST:
            raise RuntimeError(f"slower than {SLOWEST} s: {content!r}")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    files = [content for zipped in (False, True) for content in seeds(zipped)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = fuzz(files, given.seed, seconds=given.seconds)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{sum(counts.values())} files in {given.seconds:g} s: {dict(counts)}")
    print(f"the process grew by {grown:.0f} MB")
    return 0 if grown < 200 else 1


if __name__ == "__main__":
    sys.exit(main())
