"""The reader of PyTorch's files of weights: parity with torch.save, and what it refuses."""

import io
import os
import pickle
import re
import struct
import zipfile

import fuzz_weights
import numpy as np
import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.torch_file import read_state_dict

torch = pytest.importorskip("torch")

FORMATS = pytest.mark.parametrize("zipped", [False, True])


def state():
    """Tensors of every kind that weights have, some of them views of one storage."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state, shared = layers.state_dict(), torch.arange(24.0).reshape(4, 6)
    return state | {
        "turned": shared.T[1:, ::2],
        "part": shared[2],
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        **{str(t): torch.arange(5).to(t) for t in (torch.float64, torch.float16, torch.int8)},
    }


def saved(content, zipped):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def refusal(content):
    with pytest.raises(UserError) as caught:
        read_state_dict(content, "some.pth")
    message = str(caught.value)
    assert message.startswith("some.pth cannot be read as weights of PyTorch's: ")
    assert "\n" not in message
    assert len(message) < 240
    return message


@FORMATS
def test_tensors_are_torchs(zipped):
    wanted = state()
    found = read_state_dict(saved(wanted, zipped), "some.pth")
    assert list(found) == list(wanted)
    for name, tensor in wanted.items():
        exact = tensor.detach().numpy()
        assert found[name].dtype == exact.dtype
        np.testing.assert_array_equal(found[name], exact, strict=True)
        assert not found[name].flags.writeable


@FORMATS
def test_ordered_dicts_with_versions_and_plain_ones(zipped):
    """`state_dict` has an attribute `_metadata`, which its pickle sets."""
    layers = torch.nn.BatchNorm1d(3).state_dict()
    assert layers._metadata
    for content in (layers, dict(layers)):
        assert list(read_state_dict(saved(content, zipped), "x")) == list(layers)


@FORMATS
@pytest.mark.parametrize(
    "content",
    [
        {},
        [torch.ones(2)],
        torch.ones(2),
        {"a": {"b": torch.ones(2)}},
        {"a": 1.0},
        {1: torch.ones(2)},
        {"a": torch.ones(2, dtype=torch.bfloat16)},
        {"a": torch.ones(2, dtype=torch.complex64)},
        {"a": torch.ones(2).to_sparse()},
        {"a": torch.nn.Linear(2, 2)},
    ],
    ids=str,
)
def test_what_is_no_state_dict(content, zipped):
    refusal(saved(content, zipped))


@FORMATS
def test_every_cut_is_noticed(zipped):
    content = saved({"a": torch.arange(6.0)}, zipped)
    for length in range(len(content)):
        refusal(content[:length])


def test_a_flipped_bit_in_an_archive_is_noticed():
    content = saved({"weight": torch.arange(64.0)}, True)
    at = content.index(np.arange(64, dtype="<f4").tobytes()) + 30
    assert "checksum" in refusal(content[:at] + bytes([content[at] ^ 8]) + content[at + 1 :])


# ----------------------------------------------------------------------------- what would do harm


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.what = function, arguments

    def __reduce__(self):
        return self.what


def in_formats(pickled):
    """Files of both formats with this pickle where the state dict belongs."""
    valid = saved({"a": torch.ones(2)}, False)
    start, end = fuzz_weights.pickle_bounds(valid)
    yield valid[:start] + pickled + valid[end:]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", bytes(8))
    yield file.getvalue()


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


def tensor_pickle(offset, shape, stride, count=2):
    """A state dict of one tensor, of storage "0" in archives."""

    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    text = [b"X" + struct.pack("<I", len(t)) + t for t in (b"a", b"storage", b"0", b"cpu")]
    storage = b"(" + text[1] + b"ctorch\nFloatStorage\n" + text[2] + text[3] + number(count) + b"tQ"
    called = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset)
    rest = numbers(shape) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R" + b"tR"
    return b"\x80\x02}" + text[0] + called + rest + b"s."


def archive(pickled):
    return list(in_formats(pickled))[1]


def test_a_tensor_made_by_hand_is_read():
    found = read_state_dict(archive(tensor_pickle(1, (1, 1), (7, 7))), "some.pth")
    np.testing.assert_array_equal(found["a"], [[0.0]])


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
    refusal(archive(tensor_pickle(offset, shape, stride, count)))


def test_archives_that_would_swell():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as compressed:
        compressed.writestr("archive/data.pkl", tensor_pickle(0, (2,), (1,)))
        compressed.writestr("archive/data/0", bytes(1 << 20))
    assert "compressed" in refusal(file.getvalue())


def test_other_files():
    for content in (b"", b"PK", b"PK\x03\x04", b"GIF89a", b"\x80\x02", bytes(100), b"." * 100):
        refusal(content)


def test_files_of_big_endian_numbers():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("archive/data.pkl", tensor_pickle(0, (2,), (1,)))
        written.writestr("archive/data/0", bytes(8))
        written.writestr("archive/byteorder", "big")
    assert "little-endian" in refusal(file.getvalue())
    older = saved({"a": torch.ones(2)}, False)
    at = older.index(b"little_endian")
    assert "little-endian" in refusal(older[:at] + older[at:].replace(b"\x88", b"\x89", 1))


@FORMATS
def test_mutations(zipped):
    """A small part of what `python -m tests.fuzz_weights` does for as long as it is told."""
    counts = fuzz_weights.fuzz(fuzz_weights.seeds(zipped), seed=1, rounds=1500)
    assert counts["refused"] > 300
    assert sum(counts.values()) == 1500
