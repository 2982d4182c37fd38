"""The reader of PyTorch's files of weights: parity with torch.save, and damage."""

import io

import fuzz_weights
import numpy as np
import pytest
from test_torch_pickle import refusal

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


@FORMATS
def test_mutations(zipped):
    """A small part of what `python -m tests.fuzz_weights` does for as long as it is told."""
    counts = fuzz_weights.fuzz(fuzz_weights.seeds(zipped), seed=1, rounds=1500)
    assert counts["refused"] > 300
    assert sum(counts.values()) == 1500
