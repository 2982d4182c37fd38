"""Where images come from. `load` is all that training, metrics and reports need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ibgan_jax.data.variants import NAMES
from ibgan_jax.errors import UserError

if TYPE_CHECKING:
    import jax

    from ibgan_jax.data.dataset import Dataset

SOURCES = ("resident", "stream", "tfds")


def check(name: str, source: str) -> None:
    """Raises UserError for an unknown data set or source, naming the known ones."""
    if name not in NAMES:
        raise UserError(f"unknown data set {name!r}; dataset.name is one of {', '.join(NAMES)}")
    if source not in SOURCES:
        raise UserError(f"unknown source {source!r}; dataset.source is one of {', '.join(SOURCES)}")


def load(
    name: str,
    source: str,
    directory: str | Path,
    log: Callable[[str], None] = print,
    sharding: jax.sharding.Sharding | None = None,
    seed: int = 0,
    painting: str = "",
) -> Dataset:
    """Open data set `name` (one of NAMES), fed from `source` (one of SOURCES).

    - "resident": rendered once into `directory`, then held on the device, placed by `sharding`.
    - "stream": the same images read from ArrayRecord files under `directory` as training goes.
    - "tfds": the images of an already prepared TFDS data set in `directory`, then resident.

    All names show the same sprites. What a variant adds at random follows from `seed`, and
    `painting` is the picture file behind scream_dsprites ("": a generated stand-in).
    Raises UserError for an unknown name or source, or a directory or painting that cannot serve.
    """
    check(name, source)
    directory = Path(directory)
    # Imported here so that the resident path needs neither Grain nor TensorFlow Datasets.
    from ibgan_jax.data import packed, sprites, variants
    from ibgan_jax.data.dataset import ResidentDataset

    variant = variants.make(name, seed, painting)
    if source == "stream":
        from ibgan_jax.data.streaming import open_stream

        return open_stream(directory, log, name=name, variant=variant, sharding=sharding)
    if source == "tfds":
        from ibgan_jax.data.prepared import load_prepared

        records = load_prepared(directory, log=log)
    else:
        records = packed.load_packed(directory, log)
    return ResidentDataset(
        records, name, sprites.FACTOR_NAMES, sprites.FACTOR_SIZES, source, sharding, variant
    )
