"""Where images come from. `load` is all that training, metrics and reports need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ibgan_jax.data import image_sets, variants
from ibgan_jax.errors import UserError

if TYPE_CHECKING:
    import jax

    from ibgan_jax.data.dataset import Dataset

NAMES = (*variants.NAMES, *image_sets.NAMES)
SOURCES = ("resident", "stream", "tfds")
SPRITE_SIDE = 64


def has_factors(name: str) -> bool:
    """Whether the ground-truth factors of data set `name` are known, to score codes by."""
    return name in variants.NAMES


def channels(name: str, resolution: int = SPRITE_SIDE) -> int:
    """Of the images of data set `name`, without opening it.

    Raises:
      UserError: there is no such data set, or not at this resolution.
    """
    if has_factors(name):
        return variants.VARIANTS[name].channels
    return image_sets.get(name, resolution).channels


def check(
    name: str, source: str, resolution: int = SPRITE_SIDE, mirror: bool = False, painting: str = ""
) -> None:
    """Finds what cannot be in these settings of a data set, without opening it.

    Raises:
      UserError: an unknown data set or source, or settings that this one does not have.
    """
    if name not in NAMES:
        raise UserError(f"unknown data set {name!r}; dataset.name is one of {', '.join(NAMES)}")
    if source not in SOURCES:
        raise UserError(f"unknown source {source!r}; dataset.source is one of {', '.join(SOURCES)}")
    if not has_factors(name) and source == "tfds":
        raise UserError(f"dataset.source=tfds is for dSprites; {name} takes resident or stream")
    if not has_factors(name):
        image_sets.get(name, resolution)
    elif resolution != SPRITE_SIDE:
        raise UserError(f"dataset.resolution={resolution}: {name} has {SPRITE_SIDE} alone")
    if mirror and has_factors(name):
        raise UserError(f"dataset.mirror is for photographs; {name} has labelled positions")
    if painting and name != "scream_dsprites":
        raise UserError(
            f"dataset.painting={painting} is only for dataset.name=scream_dsprites, not {name}"
        )


def load(
    name: str,
    source: str,
    directory: str | Path,
    log: Callable[[str], None] = print,
    sharding: jax.sharding.Sharding | None = None,
    seed: int = 0,
    painting: str = "",
    resolution: int = SPRITE_SIDE,
    mirror: bool = False,
) -> Dataset:
    """Open data set `name` (one of NAMES), fed from `source` (one of SOURCES).

    - "resident": held on the device, placed by `sharding`; dSprites is rendered once into
      `directory`, other sets are read whole from what `--mode=prepare` left there.
    - "stream": the same images read from ArrayRecord files under `directory` as training goes.
    - "tfds": dSprites of an already prepared TFDS data set in `directory`, then resident.

    The variants of dSprites show the same sprites. What one adds at random follows from `seed`,
    and `painting` is the picture file behind scream_dsprites ("": a generated stand-in). Other sets
    have the `resolution` that they were prepared at, and with `mirror` each image both ways round.
    Raises UserError for an unknown name or source, or a directory or painting that cannot serve.
    """
    check(name, source, resolution, mirror, painting)
    directory = Path(directory)
    # Imported here so that the resident path needs neither Grain nor TensorFlow Datasets.
    if not has_factors(name):
        from ibgan_jax.data import image_dataset

        return image_dataset.load(name, source, directory, log, sharding, resolution, mirror)
    from ibgan_jax.data import packed, sprites
    from ibgan_jax.data.feed import ResidentFeed
    from ibgan_jax.data.sprite_dataset import SpriteDataset

    variant = variants.make(name, seed, painting)
    if source == "stream":
        from ibgan_jax.data.streaming import open_stream

        return open_stream(directory, log, name=name, variant=variant, sharding=sharding)
    if source == "tfds":
        from ibgan_jax.data.prepared import load_prepared

        records = load_prepared(directory, log=log)
    else:
        records = packed.load_packed(directory, log)
    feed = ResidentFeed(records, source, sharding)
    return SpriteDataset(feed, name, sprites.FACTOR_NAMES, sprites.FACTOR_SIZES, variant, sharding)
