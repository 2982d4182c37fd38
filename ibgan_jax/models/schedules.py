"""Instance noise and learning rates of GANs over the steps of a run."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp

from ibgan_jax.errors import UserError
from ibgan_jax.models.base import Hparams

DEFAULT_HPARAMS = {
    "noise_start": 1.0,
    "noise_end": 0.0,
    "noise_steps": 100_000.0,
    "late_noise": 0.0,
    "late_noise_steps": 0.0,
    "late_rates": 1.0,
    "late_rate_for_d": 1.0,
    "late_rates_from": 0.0,
    "late_rates_steps": 0.0,
}


def check(hparams: dict[str, float]) -> None:
    """Raises UserError naming numbers that cannot be, or that would do nothing."""
    if hparams["noise_steps"] < 1:
        raise UserError(f"hparams.noise_steps={hparams['noise_steps']} must be 1 or more")
    for name in ("late_rates", "late_rate_for_d"):
        if not hparams[name]:
            raise UserError(f"hparams.{name}={hparams[name]} must be above 0")
    for name, steps in (
        ("late_noise", "late_noise_steps"),
        ("late_rates", "late_rates_steps"),
        ("late_rate_for_d", "late_rates_steps"),
    ):
        if hparams[name] != DEFAULT_HPARAMS[name] and not hparams[steps]:
            raise UserError(f"hparams.{name}={hparams[name]} needs hparams.{steps} above 0")


def noise(hparams: Hparams, step: jax.Array) -> jax.Array:
    """The standard deviation sigma of the instance noise at `step` (0 is the first): [].

    It falls linearly from noise_start to noise_end over noise_steps, and from there to late_noise
    over late_noise_steps; 0, the default, leaves it at noise_end.
    """
    start, end, steps = (hparams[f"noise_{key}"] for key in ("start", "end", "steps"))
    late = _passed(step, steps, hparams["late_noise_steps"])
    early = start + (end - start) * _passed(step, 0.0, steps)
    return early + (hparams["late_noise"] - end) * late


def rates(hparams: Hparams, step: jax.Array, players: Iterable[str]) -> Hparams:
    """The learning rate `lr_PLAYER` of each player at `step` (0 is the first).

    From late_rates_from on, over late_rates_steps, each falls by the same factor at every step: to
    late_rates times its value, D_w's to late_rate_for_d times that. 0 steps, the default, leaves
    them as they are.
    """
    late = _passed(step, hparams["late_rates_from"], hparams["late_rates_steps"])
    at = {f"lr_{p}": hparams[f"lr_{p}"] * hparams["late_rates"] ** late for p in players}
    at["lr_discriminator"] *= hparams["late_rate_for_d"] ** late
    return at


def _passed(step: jax.Array, since: jax.Array | float, steps: jax.Array) -> jax.Array:
    """The part of `steps` after `since` that has passed; the first step counts as iteration 1."""
    share = jnp.clip((step + 1 - since) / jnp.maximum(steps, 1.0), 0.0, 1.0)
    return jnp.where(steps > 0, share, 0.0)
