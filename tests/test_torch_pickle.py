"""Harmful and odd files of weights, made by hand without PyTorch: none is run, all are refused."""

import io
import os
import pickle
import re
import struct
import time
import zipfile

import numpy as np
import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.torch_file import read_state_dict


def refusal(content):
    with pytest.raises(UserError) as caught:
        read_state_dict(content, "some.pth")
    message = str(caught.value)
    assert message.startswith("some.pth cannot be read as weights of PyTorch's: ")
    assert "\n" not in message
    assert len(message) < 240
    return message


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


def in_formats(pickled):
    """Files of the older and of the zip format with this pickle where the state dict belongs."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    before = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, system)]
    numbers = struct.pack("<q2f", 2, 0.5, 1.5)
    older = b"".join([*before, pickled, pickle.dumps(["0"], 2), numbers])
    return older, archive({"data.pkl": pickled, "data/0": numbers[8:]})


def archive(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as written:
        for name, content in members.items():
            written.writestr(f"archive/{name}", content)
    return file.getvalue()


@pytest.mark.parametrize("protocol", range(6))
def test_code_is_never_run(tmp_path, protocol):
    made = tmp_path / "made"
    harm = [Calls(os.mkdir, str(made)), Calls(eval, "1"), Calls(exec, f"open({str(made)!r}, 'w')")]
    for content in [*harm, {"a": harm[0]}, [harm[2]], {harm[1]: 1}]:
        for file in in_formats(pickle.dumps(content, protocol)):
            refusal(file)
    assert not made.exists()
    pickle.loads(pickle.dumps(harm[0], protocol))
    assert made.exists()  # it would have been


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (b"\x80\x02cos\nsystem\n\x8c\x02ls\x85R.", "SHORT_BINUNICODE"),
        (b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.", "calls 'os system'"),
        (b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R.", "calls 'builtins eval'"),
        (b"(S'ls'\nios\nsystem\n.", "operation STRING"),
        (b"(ios\nsystem\n.", "operation INST"),
        (b"(cos\nsystem\no.", "operation OBJ"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "'torch._utils _rebuild_tensor_v2'"),
        (b"\x80\x02}}\x85R.", "dict in place of Name"),
        (b"\x80\x02cos\nsystem\n)\x81.", "operation NEWOBJ"),
        (b"\x80\x02\x82\x01.", "operation EXT1"),
        (b"\x80\x02ccollections\nOrderedDict\n).", "makes 2 things"),
        (b"\x80\x02.", "makes 0 things"),
        (b"\x80\x02K\x01K\x02.", "makes 2 things"),
        (b"\x80\x02h\x07.", "cut or damaged"),
        (b"\x80\x02r\xff\xff\xff\xff.", "cut or damaged"),
        (b"\x80\x02X\xff\xff\xff\x7f.", "bytes"),
        (b"\x80\x02" + b"N0" * 3 + b".", "operation POP"),
        (b"\x80\x02" + b"(" * 600_000 + b"N" * 600_000 + b".", "more than 1000000 operations"),
    ],
)
def test_pickles_made_by_hand(pickled, said):
    for file in in_formats(pickled):
        assert re.search(said, refusal(file))


def tensor_pickle(offset, shape, stride, count=2, last=b""):
    """A state dict of one tensor, of storage "0"; `last` is what the older format adds."""

    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    text = [b"X" + struct.pack("<I", len(t)) + t for t in (b"a", b"storage", b"0", b"cpu")]
    storage = (
        b"("
        + text[1]
        + b"ctorch\nFloatStorage\n"
        + text[2]
        + text[3]
        + number(count)
        + last
        + b"tQ"
    )
    called = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset)
    rest = numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R" + b"tR"
    return b"\x80\x02}" + text[0] + called + rest + b"s."


@pytest.mark.parametrize("form", [0, 1])
def test_a_tensor_made_by_hand_is_read(form):
    content = in_formats(tensor_pickle(1, (1, 1), (7, 7), last=(b"", b"N")[form == 0]))[form]
    np.testing.assert_array_equal(read_state_dict(content, "some.pth")["a"], [[1.5]])


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "count"),
    [
        (1, (2,), (1,), 2),
        (0, (2,), (2,), 2),
        (-1, (1,), (1,), 2),
        (1, (2,), (-1,), 2),
        (0, (1 << 40,), (0,), 2),
        (0, (1 << 62, 4), (0, 0), 2),
        (0, (-1,), (1,), 2),
        (0, (-1, -2), (0, 0), 2),
        (0, (2,), (1, 1), 2),
        (0, (2,), (), 2),
        (0, (1,) * 9, (1,) * 9, 2),
        (0, (2,), (1,), 1 << 40),
        (0, (2,), (1,), -2),
        (0, (1 << 66, 0), (1, 1), 2),
    ],
)
def test_tensors_that_reach_outside_or_ask_for_memory(offset, shape, stride, count):
    for last, form in ((b"N", 0), (b"", 1)):
        refusal(in_formats(tensor_pickle(offset, shape, stride, count, last))[form])


def test_archives_that_would_swell():
    members = {"data.pkl": tensor_pickle(0, (2,), (1,)), "data/0": bytes(1 << 20)}
    assert "compressed" in refusal(archive(members, zipfile.ZIP_DEFLATED))


def test_members_that_overlap():
    """Each would be checked anew: here the table of contents names the same bytes three times."""
    content = archive({"data.pkl": tensor_pickle(0, (2,), (1,)), "data/0": bytes(100_000)})
    start = content.rindex(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry, (count,) = content[start:end], struct.unpack_from("<H", content, end + 10)
    table = struct.pack("<HH", count + 2, count + 2)
    many = content[:end] + 2 * entry + content[end : end + 8] + table + content[end + 12 :]
    assert "compressed or damaged" in refusal(many)


def test_other_files():
    for content in (b"", b"PK", b"PK\x03\x04", b"GIF89a", b"\x80\x02", bytes(100), b"." * 100):
        refusal(content)


def test_files_of_big_endian_numbers():
    pickled = tensor_pickle(0, (2,), (1,))
    members = {"data.pkl": pickled, "data/0": bytes(8), "byteorder": "big"}
    assert "little-endian" in refusal(archive(members))
    older = in_formats(pickled)[0]
    at = older.index(b"little_endian")
    assert "little-endian" in refusal(older[:at] + older[at:].replace(b"\x88", b"\x89", 1))


@pytest.mark.parametrize("call", ["tensor", "dict", "arguments"])
def test_long_parts_that_are_used_again_and_again(call):
    """100,000 numbers, looked at 100,000 times, would be hours."""
    long = b"(" + 100_000 * b"K\x01"
    if call == "tensor":
        again = b"ctorch._utils\n_rebuild_tensor_v2\n(K\x00K\x00h\x00h\x00tR"
        pickled = long + b"tq\x00" + 100_000 * again
    elif call == "dict":
        pickled = (
            b"]("
            + 50_000 * b"K\x01K\x01\x86"
            + b"eq\x00"
            + (100_000 * b"ccollections\nOrderedDict\nh\x00\x85R")
        )
    else:
        pickled = long + b"tq\x00" + 100_000 * b"ccollections\nOrderedDict\nh\x00R"
    started = time.process_time()
    for file in in_formats(b"\x80\x02" + pickled + b"."):
        refusal(file)
    assert time.process_time() - started < 10
