"""Members of a population that are drawn at random."""

import math

import numpy as np
import pytest
import tiny

from ibgan_jax import config as configs
from ibgan_jax.errors import UserError

DRAWN = {"population.draws": 200, "population.beta": (0.001, 1), "population.noise_end": (0, 0.4)}


def test_draws_are_spread_over_their_ranges_and_are_the_same_every_time():
    config = tiny.config()
    config.update_from_flattened_dict(DRAWN)
    made = configs.members(config)
    names = [name for name, _ in made]
    assert names[:2] == [f"{config.name}-ibgan-draw{i}-seed{config.seed}" for i in range(2)]
    assert len(set(names)) == 200
    beta, noise = (np.array([m.hparams[key] for _, m in made]) for key in ("beta", "noise_end"))
    # Uniform in the logarithm, uniform where the range begins at 0, and not with one another.
    assert beta.min() >= 0.001 and beta.max() <= 1 and 0.4 < np.mean(beta < 0.001**0.5) < 0.6
    assert noise.min() >= 0 and noise.max() <= 0.4 and 0.17 < noise.mean() < 0.23
    assert abs(np.corrcoef(np.log(beta), noise)[0, 1]) < 0.2
    assert [float(f"{x:.3g}") for x in beta] == beta.tolist()
    assert all(configs.same_program(member, made[0][1]) for _, member in made)
    assert [m.to_dict() for _, m in made] == [m.to_dict() for _, m in configs.members(config)]
    config.seed += 1
    assert configs.members(config)[0][1].hparams.beta != made[0][1].hparams.beta


def test_every_draw_comes_with_every_seed():
    config = tiny.config()
    config.update_from_flattened_dict({**DRAWN, "population.draws": 2, "population.seeds": (5, 6)})
    made = configs.members(config)
    assert [name.partition("-draw")[2] for name, _ in made] == [
        f"{draw}-seed{seed}" for draw in (0, 1) for seed in (5, 6)
    ]
    alone = made[1][1]
    assert alone.seed == 6 and alone.hparams == made[0][1].hparams
    assert not configs.members(alone) and alone.population.draws == 0


@pytest.mark.parametrize(
    "values", [(0.1,), (0.2, 0.1), (0.1, 0.2, 0.3), (-0.1, 0.1), (0, math.inf)]
)
def test_what_is_no_range_is_named(values):
    config = tiny.config()
    config.update_from_flattened_dict({"population.draws": 2, "population.beta": values})
    with pytest.raises(UserError, match=r"population\.beta=.* must be a range \(low, high\)"):
        configs.check(config)
