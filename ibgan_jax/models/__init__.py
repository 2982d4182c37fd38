"""WHAT is learned: one file for each system."""

from __future__ import annotations

import dataclasses
from typing import Any

from ibgan_jax.errors import UserError
from ibgan_jax.models.base import Model
from ibgan_jax.models.beta_tcvae import BetaTCVAE
from ibgan_jax.models.factor_vae import FactorVAE
from ibgan_jax.models.ibgan import IBGAN
from ibgan_jax.models.infogan import GAN, InfoGAN
from ibgan_jax.models.vae import VAE, BetaVAE

_MODELS: dict[str, type] = {
    "gan": GAN,
    "infogan": InfoGAN,
    "ibgan": IBGAN,
    "vae": VAE,
    "beta_vae": BetaVAE,
    "factor_vae": FactorVAE,
    "beta_tcvae": BetaTCVAE,
}
NAMES = tuple(_MODELS)


def get(name: str, **network: Any) -> Model:
    """The model called `name`, its static settings (widths, dimensions) overridden by `network`.

    Raises:
      UserError: no such model, or no such setting of it.
    """
    if name not in _MODELS:
        raise UserError(f"unknown model {name!r}; choose one of: {', '.join(NAMES)}")
    settings = {field.name for field in dataclasses.fields(_MODELS[name])}
    unknown = sorted(set(network) - settings)
    if unknown:
        raise UserError(
            f"unknown network setting {unknown[0]!r} of model {name!r}; "
            f"choose from: {', '.join(sorted(settings))}"
        )
    return _MODELS[name](**network)


__all__ = ["NAMES", "Model", "get"]
