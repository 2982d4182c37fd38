"""Loads Inception V3 for FID from the file of weights that pytorch-fid publishes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.torch_file import read_state_dict
from ibgan_jax.networks.inception import Inception

PROTOCOL = "inception"
PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"
# Its first eight digits stand in the name; the whole is what others who pinned the file recorded.
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
WHERE = f"github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{PUBLISHED}"
RESIZED = "299 x 299, bilinear, align_corners=False, not antialiased"
LARGEST = 1 << 30  # bytes; the published file has 95,628,359

# Flax's names of what each layer holds -> PyTorch's.
_HELD = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
# What the file holds beyond the features' network: its classes, and counts of training batches.
_UNUSED = ("fc.weight", "fc.bias")
_COUNTED = ".num_batches_tracked"


def load(
    path: str | Path, sha256: str | None = PUBLISHED_SHA256
) -> tuple[Callable[[jax.Array], jax.Array], dict[str, Any]]:
    """(features_of: images [B, H, W, C] in [-1, 1] -> features [B, 2048], the record) of a file.

    Images have 1 or 3 channels and any size. `sha256` is what the file's must be; with None any
    weights of this network do, and the record says which, for their values compare with no others.

    Differences from pytorch-fid: images come as they are, where it reads files of 8 bits a channel,
    so that generated ones are not rounded to 256 levels; and the last batch is not dropped, as it
    was in its early versions.

    Raises:
      UserError: there is no such file, it is another one, is damaged, or is not of this network.
    """
    path = Path(path)
    content = _read(path)
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise UserError(
            f"{path} is not the file wanted: its SHA-256 is {found}, not {sha256}; "
            f"{PUBLISHED} is published at {WHERE}"
        )
    net = Inception()
    wanted = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    variables = jax.device_put(variables_of(read_state_dict(content, str(path)), wanted, str(path)))
    apply = jax.jit(net.apply)
    record = {"protocol": PROTOCOL, "sha256": found, "file": path.name, "resized": RESIZED}
    return lambda images: apply(variables, images), record


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise UserError(f"{path} has {size} bytes, too many for weights of Inception V3")
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read Inception's weights from {path} ({error.strerror}); "
            f"{PUBLISHED} is published at {WHERE}"
        ) from error


def variables_of(state: Mapping[str, np.ndarray], wanted: Any, name: str) -> dict[str, Any]:
    """Flax variables, with the shapes that `wanted` has, from PyTorch's tensors by name.

    Raises:
      UserError: in `name` a tensor is missing, has another shape or type, or is not the network's.
    """
    flat, found = traverse_util.flatten_dict(wanted), {}
    for place, leaf in flat.items():
        entry = _entry(place)
        if entry not in state:
            raise UserError(f"{name} is not of this network: it lacks {entry}")
        # Flax has kernels as [H, W, I, O], PyTorch as [O, I, H, W].
        order = (3, 2, 0, 1) if place[-1] == "kernel" else tuple(range(leaf.ndim))
        shape, value = tuple(leaf.shape[axis] for axis in order), state[entry]
        if value.shape != shape or value.dtype != np.float32:
            raise UserError(
                f"{name} is not of this network: {entry} is {value.dtype} {list(value.shape)}, "
                f"not float32 {list(shape)}"
            )
        found[place] = np.ascontiguousarray(value.transpose(np.argsort(order)))
    known = {_entry(place) for place in flat}
    layers = {entry.rpartition(".")[0] for entry in known}
    for entry in state:
        if entry not in known and entry not in _UNUSED:
            layer = entry.removesuffix(_COUNTED)
            if layer == entry or layer not in layers:
                raise UserError(f"{name} is not of this network: it holds {entry[:60]!r} too")
    return traverse_util.unflatten_dict(found)


def _entry(place: tuple[str, ...]) -> str:
    """PyTorch's name of what Flax has at `place`: (collection, modules..., name)."""
    collection, *modules, held = place
    return ".".join([*modules, _HELD[collection, held]])
