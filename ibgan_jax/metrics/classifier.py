"""The networks whose features FID compares, by protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ibgan_jax.errors import UserError
from ibgan_jax.metrics import factor_classifier, inception

# Each takes a path and gives (features_of, record), whose `protocol` is the name here.
LOADERS = {
    factor_classifier.PROTOCOL: factor_classifier.load,
    inception.PROTOCOL: inception.load,
}
HOW = {
    factor_classifier.PROTOCOL: "a folder that "
    f"`python -m {factor_classifier.__name__} --out=DIR` makes",
    inception.PROTOCOL: f"the file that is published at {inception.WHERE}",
}


def load(
    path: Path | None, protocol: str = "", dataset: str = ""
) -> tuple[Callable[[jax.Array], jax.Array], dict[str, Any]]:
    """(features_of: images [B, H, W, C] in [-1, 1] -> features [B, d], the record).

    Without a `protocol`, a file or whatever is named .pth is Inception's weights, and everything
    else a factor classifier's folder.

    Raises:
      UserError: there is no path, such a protocol or classifier, or it has learned another data set
        than `dataset`.
    """
    if protocol and protocol not in LOADERS:
        raise UserError(
            f"unknown protocol {protocol!r} of fid; choose one of: {', '.join(LOADERS)}"
        )
    if path is None:
        known = "; ".join(f"{name}: {HOW[name]}" for name in LOADERS if protocol in ("", name))
        raise UserError(
            f"fid needs --classifier=PATH, the network whose features it compares: {known}"
        )
    of_inception = path.is_file() or path.suffix == ".pth"
    guessed = inception.PROTOCOL if of_inception else factor_classifier.PROTOCOL
    features_of, record = LOADERS[protocol or guessed](path)
    learned = record.get("dataset", dataset)
    if dataset and learned != dataset:
        raise UserError(f"{path} was trained on {learned}, a run on {dataset}")
    return features_of, record
