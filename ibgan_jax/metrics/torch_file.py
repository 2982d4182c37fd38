"""Reads PyTorch's `.pth` files of weights without PyTorch, and without ever unpickling.

Such a file is a pickle beside the numbers, which `torch_pickle` takes apart. Tensors are views of
the file's own bytes, so that no file can ask for memory.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

import numpy as np

from ibgan_jax.errors import UserError, one_line
from ibgan_jax.metrics.torch_pickle import Storage, Tensor, run

MAGIC = 0x1950A86A20F9469CFC6C  # what the first pickle of the older format holds
LEGACY_VERSION = 1001


def read_state_dict(content: bytes, name: str) -> dict[str, np.ndarray]:
    """The tensors of a state dict, as `torch.save` writes it in its older and its zip format.

    The arrays are read-only views of `content`. Values are not checked, but for the checksums of
    the zip format: compare the file's own hash where it is known.

    Raises:
      UserError: `name` is no such file, is cut or damaged, or holds more than tensors by name.
    """
    try:
        read = _zip_format if content[:4] == b"PK\x03\x04" else _older_format
        tensors, storages = read(content)
        return {key: _array(tensor, storages) for key, tensor in tensors.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error) as error:
        said = isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError)
        reason = one_line(error) if said else "it is cut or damaged"
        raise UserError(f"{name} cannot be read as weights of PyTorch's: {reason}") from error


def _zip_format(content: bytes) -> tuple[dict[str, Tensor], dict[Storage, memoryview]]:
    """The tensors and the bytes of their storages."""
    members = dict(_zip_members(content))
    pickles = [member for member in members if member.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError(f"the archive holds {len(pickles)} data.pkl, not one")
    folder = pickles[0].removesuffix("data.pkl")
    if bytes(members.get(folder + "byteorder", b"little")) != b"little":
        raise ValueError("its numbers are not in little-endian order")
    tensors = _state_dict(run(BytesIO(members[pickles[0]])))
    used = {tensor.storage for tensor in tensors.values()}
    return tensors, {storage: members[f"{folder}data/{storage.key}"] for storage in used}


_END, _ENTRY = struct.Struct("<HII"), struct.Struct("<4s6xH4xIIIHHH8xI")


def _zip_members(content: bytes) -> Iterator[tuple[str, memoryview]]:
    """(name, bytes) of each file in an archive without compression, its checksum compared."""
    view, end = memoryview(content), content.rfind(b"PK\x05\x06", -(22 + 0xFFFF))
    if end < 0 or len(content) < end + 22:
        raise ValueError("it is cut: the archive's table of contents is missing")
    entries, _, entry = _END.unpack_from(content, end + 10)
    left = len(content)  # members that overlap could be checked for hours
    for _ in range(entries):
        mark, method, crc, packed, size, name, extra, comment, start = _ENTRY.unpack_from(
            content, entry
        )
        member = str(view[entry + 46 : entry + 46 + name], "utf-8")
        left -= size
        if mark != b"PK\x01\x02" or method or packed != size or left < 0:
            raise ValueError("the archive is compressed or damaged")
        start += 30 + sum(struct.unpack_from("<HH", content, start + 26))
        if start + size > len(content) or zlib.crc32(view[start : start + size]) != crc:
            raise ValueError(f"it is cut or damaged: {member!r} is not what its checksum says")
        yield member, view[start : start + size]
        entry += 46 + name + extra + comment


def _older_format(content: bytes) -> tuple[dict[str, Tensor], dict[Storage, memoryview]]:
    """The tensors and the bytes of their storages, which follow five pickles."""
    file = BytesIO(content)
    if run(file) != MAGIC or run(file) != LEGACY_VERSION:
        raise ValueError("it does not begin as such a file does")
    system = run(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not in little-endian order")
    tensors = _state_dict(run(file))
    declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    keys, storages, view = run(file), {}, memoryview(content)
    position = file.tell()
    for key in keys:
        storage = declared.pop(key)
        (count,) = struct.unpack_from("<q", content, position)
        if count != storage.count:
            raise ValueError(f"storage {key!r} holds {count} numbers, not {storage.count}")
        size = count * np.dtype(storage.dtype).itemsize
        storages[storage] = view[position + 8 : position + 8 + size]
        position += 8 + size
    return tensors, storages


def _state_dict(made: Any) -> dict[str, Tensor]:
    if not isinstance(made, dict) or not made:
        raise ValueError("it holds no state dict (tensors by name)")
    for key, value in made.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"its entry {str(key)[:60]!r} is no tensor")
    return made


def _array(tensor: Tensor, storages: Mapping[Storage, memoryview]) -> np.ndarray:
    """The tensor as a view of its storage's bytes, once it is known to lie inside them."""
    storage, dtype = tensor.storage, np.dtype(tensor.storage.dtype)
    content = storages[storage]
    if storage.count < 0 or len(content) != storage.count * dtype.itemsize:
        raise ValueError(f"it is cut or damaged: storage {storage.key!r} has {len(content)} bytes")
    shape, stride, last = tensor.shape, tensor.stride, tensor.offset
    if len(shape) != len(stride) or min((0, tensor.offset, *shape, *stride)) < 0:
        raise ValueError("a tensor's shape, strides and offset do not fit each other")
    count = math.prod(shape)
    if count:
        last += sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    # A stride of 0 could make many numbers of few: no weights are stored so.
    if count > storage.count or (count and last >= storage.count):
        raise ValueError(f"a tensor of {count} numbers does not lie inside its storage")
    numbers = np.frombuffer(content, dtype)[tensor.offset if count else 0 :]
    bytes_apart = [step * dtype.itemsize if count else 0 for step in stride]
    return np.lib.stride_tricks.as_strided(numbers, shape, bytes_apart, writeable=False)
