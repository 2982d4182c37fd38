"""weights.npz: what people use of a trained run, in one small file.

It holds the arrays that scores and pictures read, so of IB-GAN e_psi, G_theta and q_phi without D_w
and without the optimizers, in float16: 7 MB at the paper's width. A run cannot train on from it.
The array `record` holds JSON: the step, the run's config, and a SHA-256 over both and all arrays.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ibgan_jax.errors import UserError, blamed_on
from ibgan_jax.models.base import ByPlayer, Model, PyTree

RECORD = "record"
_ROUNDING = 2.0**-11  # what rounding to float16 costs a number in its normal range, relatively
_ADVICE = "; unpack it again, or put back a copy"


@functools.cache
def names(model: Model) -> tuple[str, ...]:
    """The names of the arrays that `represent`, `generate` or `bounds` read, PLAYER/KIND/...

    An array is read when a step of the traced functions takes it.
    """
    variables, images, codes = (
        _shapes(model),
        jax.ShapeDtypeStruct((2, *model.image_shape), np.float32),
        jax.ShapeDtypeStruct((2, model.code_dim), np.float32),
    )

    def use(variables: ByPlayer, images: jax.Array, codes: jax.Array, key: jax.Array) -> tuple:
        hparams = model.schedule(model.hparams, 0)
        return (
            model.represent(variables, images),
            model.generate(variables, codes),
            model.bounds(variables, key, images, hparams),
        )

    traced = jax.make_jaxpr(use)(variables, images, codes, jax.random.key(0)).jaxpr
    read = {id(x) for equation in traced.eqns for x in equation.invars}
    named = jax.tree.leaves(_named(variables))
    return tuple(n for n, x in zip(named, traced.invars, strict=False) if id(x) in read)


def pack(model: Model, variables: ByPlayer, step: int, config: Mapping[str, Any]) -> bytes:
    """The content of a weights.npz.

    An array stays in float32 when it is too large or too small for float16: when rounding would
    move an element by more than 2^-11 of the largest one.

    Raises:
      UserError: an array holds a number that is not finite.
    """
    flat = dict(zip(jax.tree.leaves(_named(variables)), jax.tree.leaves(variables), strict=True))
    arrays = {name: _rounded(name, np.asarray(flat[name], np.float32)) for name in names(model)}
    record = {"step": int(step), "config": config}
    text = json.dumps({**record, "sha256": _digest(record, arrays)}, sort_keys=True)
    file = io.BytesIO()
    np.savez(file, **arrays, **{RECORD: np.frombuffer(text.encode(), np.uint8)})
    return file.getvalue()


def record(path: Path) -> dict[str, Any]:
    """`step`, `config` and `sha256` of an intact weights.npz.

    Raises:
      UserError: the file cannot be read, is no weights.npz, or is damaged.
    """
    return _read(path)[0]


def unpack(path: Path, model: Model) -> ByPlayer:
    """The variables in a weights.npz, with None for arrays that are not in it; not on devices yet.

    Raises:
      UserError: as `record`, or the arrays are not those of the model.
    """
    _, arrays = _read(path)
    shapes = _shapes(model)
    flat = zip(jax.tree.leaves(_named(shapes)), jax.tree.leaves(shapes), strict=True)
    wanted = {name: x.shape for name, x in flat if name in names(model)}
    there = {name: x.shape for name, x in arrays.items()}
    if there != wanted:
        name = next(n for n in wanted | there if there.get(n) != wanted.get(n))
        raise UserError(
            f"{path} holds another model: {name} is {there.get(name, 'absent')} there, "
            f"{wanted.get(name, 'absent')} in the model of its config.json"
        )
    place = functools.partial(_array, arrays)
    return jax.tree.map(place, _named(shapes), shapes)


def _array(
    arrays: Mapping[str, np.ndarray], name: str, shape: jax.ShapeDtypeStruct
) -> np.ndarray | None:
    return arrays[name].astype(shape.dtype) if name in arrays else None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(record, arrays) of an intact file."""
    with blamed_on(path, "is damaged or no weights.npz", _ADVICE):
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = json.loads(arrays.pop(RECORD).tobytes())
        written = record.pop("sha256")
        if written != _digest(record, arrays):
            raise ValueError("its checksum is of other numbers")
        return {"step": record["step"], "config": record["config"], "sha256": written}, arrays


def _rounded(name: str, x: np.ndarray) -> np.ndarray:
    """`x` in float16, or as it is where float16 cannot hold it."""
    if not np.all(np.isfinite(x)):
        raise UserError(f"{name} holds a number that is not finite: nothing can be said of it")
    with np.errstate(over="ignore", under="ignore"):
        half = x.astype(np.float16)
    largest = np.max(np.abs(x), initial=0.0)
    fits = np.max(np.abs(half.astype(np.float32) - x), initial=0.0) <= _ROUNDING * largest
    return half if fits else x


def _digest(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the record and every array with its name, type and shape."""
    found = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, x in sorted(arrays.items()):
        found.update(f"\n{name} {x.dtype.str} {x.shape}\n".encode())
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()


def _shapes(model: Model) -> PyTree:
    return jax.eval_shape(model.init, jax.random.key(0))


def _named(variables: PyTree) -> PyTree:
    """The same tree with the name of each array in its place."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "/".join(part.key for part in path), variables
    )
