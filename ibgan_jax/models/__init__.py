"""WHAT is learned: one file for each system."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from ibgan_jax.errors import UserError
from ibgan_jax.models.base import Model

# Name -> file and class; a system is imported when it is asked for.
_MODELS = {
    "gan": "infogan.GAN",
    "infogan": "infogan.InfoGAN",
    "ibgan": "ibgan.IBGAN",
    "vae": "vae.VAE",
    "beta_vae": "vae.BetaVAE",
    "factor_vae": "factor_vae.FactorVAE",
    "beta_tcvae": "beta_tcvae.BetaTCVAE",
}
NAMES = tuple(_MODELS)


def get(name: str, **network: Any) -> Model:
    """The model called `name`, its static settings (widths, dimensions) overridden by `network`.

    Raises:
      UserError: no such model, or no such setting of it.
    """
    if name not in _MODELS:
        raise UserError(f"unknown model {name!r}; choose one of: {', '.join(NAMES)}")
    file, _, kind = _MODELS[name].partition(".")
    system = getattr(importlib.import_module(f"{__name__}.{file}"), kind)
    settings = {field.name for field in dataclasses.fields(system)}
    unknown = sorted(set(network) - settings)
    if unknown:
        raise UserError(
            f"unknown network setting {unknown[0]!r} of model {name!r}; "
            f"choose from: {', '.join(sorted(settings))}"
        )
    return system(**network)


__all__ = ["NAMES", "Model", "get"]
