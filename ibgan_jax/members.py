"""The members of a population: a run for each combination of values, or for each random draw."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibgan_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# The settings of a population that are not the values of a seed or of a hyperparameter.
AT_ONCE = "at_once"
DRAWS = "draws"
DIGITS = 3  # of a number that is drawn


def varied(config: ConfigDict) -> dict[str, Any]:
    """The values of a population: of seeds and of each hyperparameter, () where none are named."""
    return {key: x for key, x in config.population.items() if key not in (AT_ONCE, DRAWS)}


def members(config: ConfigDict) -> list[tuple[str, ConfigDict]]:
    """(folder, config) of every member that `config.population` names; none if it is empty.

    Each value of each hyperparameter comes with each seed; the seeds vary fastest. With
    `population.draws` = N the values of a hyperparameter are the ends of a range instead, and N
    times every hyperparameter is drawn from its range, uniformly in its logarithm where the range
    is above 0. Each draw comes with each seed. The draws are a function of `config.seed`. A
    member's config is that of a run alone.

    Raises:
      UserError: something is named twice, too finely for folders' names, or not as a tuple of
        numbers (of integers for seeds); or what is drawn from is not a range.
    """
    named = varied(config)
    for key, values in named.items():
        _check_values(key, values)
    draws = config.population[DRAWS]
    if draws < 0:
        raise UserError(f"population.draws={draws} must be 0 (every combination) or more")
    seeds = named.pop("seeds")
    swept = {key: values for key, values in named.items() if values}
    if not (draws or seeds or swept):
        return []
    chosen = _drawn(swept, draws, config.seed) if draws else _combined(swept)
    made = []
    for name, numbers in chosen:
        for seed in seeds or (config.seed,):
            member = config.copy_and_resolve_references()
            member.seed = seed
            member.hparams.update(numbers)
            member.population.update({DRAWS: 0, **dict.fromkeys(varied(config), ())})
            made.append((f"{config.name}-{config.model}{name}-seed{seed}", member))
    return made


def _check_values(key: str, values: Any) -> None:
    if not isinstance(values, tuple | list):
        raise UserError(f"population.{key}={values!r} must be a tuple, such as ({values!r},)")
    kinds = int if key == "seeds" else int | float
    wrong = [x for x in values if isinstance(x, bool) or not isinstance(x, kinds)]
    if wrong:
        raise UserError(f"population.{key}: {wrong[0]!r} is not what it takes, numbers alone")
    shown = values if key == "seeds" else [f"{value:g}" for value in values]
    if len(set(shown)) < len(values):
        raise UserError(f"population.{key}={tuple(values)} names a value twice (to 6 digits)")


def _combined(swept: dict[str, Sequence]) -> list[tuple[str, dict[str, float]]]:
    """(part of the folder's name, hyperparameters) of every combination of values."""
    return [
        (
            "".join(f"-{key}{value:g}" for key, value in zip(swept, chosen, strict=True)),
            dict(zip(swept, map(float, chosen), strict=True)),
        )
        for chosen in itertools.product(*swept.values())
    ]


def _drawn(swept: dict[str, Sequence], draws: int, seed: int) -> list[tuple[str, dict[str, float]]]:
    """(part of the folder's name, hyperparameters) of every random draw."""
    if not swept:
        raise UserError(f"population.draws={draws} needs ranges, such as population.beta=(0, 1)")
    for key, values in swept.items():
        if len(values) != 2 or not 0 <= values[0] < values[1] < math.inf:
            raise UserError(
                f"population.{key}={tuple(values)} must be a range (low, high), 0 or more, "
                f"where population.draws={draws}"
            )
    rng = np.random.default_rng(seed)
    made = []
    for number in range(draws):
        numbers = {}
        for key, (low, high) in swept.items():
            ends = np.log([low, high]) if low > 0 else np.array([low, high], float)
            value = rng.uniform(*ends)
            numbers[key] = float(f"{np.exp(value) if low > 0 else value:.{DIGITS}g}")
        made.append((f"-draw{number}", numbers))
    return made
