"""Takes apart the pickles in PyTorch's files of weights; it never unpickles.

A pickle is a program for a stack machine that may call anything. The machine here knows the few
operations that `torch.save` writes for a state dict, makes nothing but dicts, tuples, lists, text,
numbers and descriptions of tensors, and refuses everything else by name. Its work grows no faster
than the pickle's length.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

MAX_OPCODES = 1_000_000  # some 50 for a tensor
MAX_DIMENSIONS = 8
MAX_ARGUMENTS = 8

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers in the file: its key there, NumPy's name of their type, how many."""

    key: str
    dtype: str
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; `offset` and `stride` count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Name:
    """A name of Python's that the pickle speaks of: `module name`. Nothing is looked up."""

    text: str


def run(file: BytesIO) -> Any:
    """What the pickle at the file's position describes; the position moves behind it.

    Raises:
      ValueError: it holds what no weights need; its message is for the user.
      IndexError, KeyError, TypeError: it is damaged.
    """
    stack: list[Any] = []
    marks: list[list[Any]] = []
    memo: dict[int, Any] = {}
    for name, argument in _operations(file):
        if name in _LITERALS:
            stack.append(argument)
        elif name in _MAKERS:
            stack.append(_MAKERS[name]())
        elif name == "GLOBAL":
            stack.append(Name(argument))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(stack)
            stack = []
        elif name in _OF_MARK:
            items, stack = stack, marks.pop()
            _OF_MARK[name](stack, items)
        elif name in _OF_STACK:
            count, function = _OF_STACK[name]
            arguments = [stack.pop() for _ in range(count)][::-1]
            stack.append(function(*arguments))
    if len(stack) != 1 or marks:
        raise ValueError(f"its pickle makes {len(stack)} things, not one")
    return stack[0]


def _operations(file: BytesIO) -> Iterator[tuple[str, Any]]:
    """(name, argument) of each operation up to STOP; what is not known is not even taken in."""
    for _ in range(MAX_OPCODES):
        code = file.read(1).decode("latin-1")
        if not code:
            raise ValueError("it is cut: its pickle has no end")
        name = _NAMES.get(code, repr(code))
        if name == "STOP":
            return
        if name not in _KNOWN:
            raise ValueError(f"its pickle has the operation {name}, which weights do not need")
        read = _KNOWN[name]
        yield name, read.reader(file) if read else None
    raise ValueError(f"its pickle has more than {MAX_OPCODES} operations")


def _expected(value: Any, kind: type) -> Any:
    # A bool is an int to Python.
    if type(value) is not kind:
        raise ValueError(f"its pickle has {_kind(value)} in place of {kind.__name__}")
    return value


def _kind(value: Any) -> str:
    return f"{value.text[:60]!r}" if isinstance(value, Name) else type(value).__name__


def _set_items(target: Any, items: list[Any]) -> dict:
    """`target`, a dict, with keys and values in turn."""
    _expected(target, dict)
    if len(items) % 2:
        raise ValueError("its pickle has a key without a value")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):
            raise ValueError(f"its pickle has {_kind(key)} as a key")
        target[key] = value
    return target


def _build(target: Any, state: Any) -> dict:
    """A dict as it is: the versions of its layers, which PyTorch attaches, are not needed."""
    _expected(state, dict)
    return _expected(target, dict)


def _storage(identity: Any) -> Storage:
    """Of a persistent id: ("storage", type, key, place, count), and None in the older format."""
    kind, storage_type, key, _, count, *rest = _arguments(identity)
    if kind != "storage" or rest not in ([], [None]):
        raise ValueError("its pickle refers to something other than a whole storage")
    module, _, storage_name = _expected(storage_type, Name).text.partition(" ")
    if module != "torch" or storage_name not in DTYPES:
        raise ValueError(f"it holds numbers of type {storage_type.text[:60]!r}")
    return Storage(_expected(key, str), DTYPES[storage_name], _expected(count, int))


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    for numbers in (shape, stride):
        if len(_expected(numbers, tuple)) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor of {len(numbers)} dimensions, more than {MAX_DIMENSIONS}")
        for number in numbers:
            _expected(number, int)
    return Tensor(_expected(storage, Storage), _expected(offset, int), shape, stride)


def _parameter(data: Any, *_: Any) -> Tensor:
    return _expected(data, Tensor)


def _ordered_dict(*pairs: Any) -> dict:
    """Empty, or of one list of pairs, as Python 2 wrote it."""
    made: dict = {}
    for listed in pairs:
        for pair in _expected(listed, list):
            key, value = pair
            _set_items(made, [key, value])
        listed.clear()  # it serves once: a long list that is used again and again would take long
    return made


# The only calls that mean something here. None of them is the function of that name.
CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}


def _reduce(called: Any, arguments: Any) -> Any:
    text = _expected(called, Name).text
    if text not in CALLS:
        raise ValueError(f"its pickle calls {text[:60]!r}, which weights do not need")
    return CALLS[text](*_arguments(arguments))


def _arguments(value: Any) -> tuple:
    """A tuple short enough to be looked at whole, however often the pickle refers to it."""
    if len(_expected(value, tuple)) > MAX_ARGUMENTS:
        raise ValueError(f"its pickle has {len(value)} arguments in place of {MAX_ARGUMENTS}")
    return value


def _append(target: Any, item: Any) -> list:
    _expected(target, list).append(item)
    return target


_LITERALS = frozenset(
    ["BINUNICODE", "SHORT_BINSTRING", "BINSTRING", "BININT", "BININT1", "BININT2", "LONG1"]
)
_MAKERS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
# What takes everything above the last mark.
_OF_MARK: dict[str, Callable[[list[Any], list[Any]], Any]] = {
    "TUPLE": lambda stack, items: stack.append(tuple(items)),
    "SETITEMS": lambda stack, items: _set_items(stack[-1], items),
    "APPENDS": lambda stack, items: _expected(stack[-1], list).extend(items),
}
# How many values each takes, and what it makes of them.
_OF_STACK: dict[str, tuple[int, Callable[..., Any]]] = {
    "TUPLE1": (1, lambda *items: items),
    "TUPLE2": (2, lambda *items: items),
    "TUPLE3": (3, lambda *items: items),
    "SETITEM": (3, lambda target, key, value: _set_items(target, [key, value])),
    "APPEND": (2, _append),
    "BUILD": (2, _build),
    "BINPERSID": (1, _storage),
    "REDUCE": (2, _reduce),
}

_NAMES = {code.code: code.name for code in pickletools.opcodes}
_OTHERS = {"PROTO", "GLOBAL", "MARK", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"}
# How each known operation's argument is taken from the file.
_KNOWN = {
    code.name: code.arg
    for code in pickletools.opcodes
    if code.name in _OTHERS.union(_LITERALS, _MAKERS, _OF_MARK, _OF_STACK)
}
