"""The generative information lower bound, GILBO (Alemi and Fischer 2018).

How many nats an image that a generator makes tells of the code behind it. It needs the generator
alone, neither data nor factors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from ibgan_jax import objectives
from ibgan_jax.errors import UserError
from ibgan_jax.metrics.encoding import BATCH_SIZE
from ibgan_jax.metrics.score import Interval, Score
from ibgan_jax.networks.conv_vae import ConvEncoder

Generate = Callable[[jax.Array], jax.Array]

STEPS_PER_DISPATCH = 50
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The numbers behind a value.

    Attributes:
      steps: of Adam on the encoder, each on fresh draws.
      batch_size: draws a step.
      learning_rate: the first; it falls to 0 along half a cosine, which settles the encoder.
      draws: fresh ones, whose mean is the value.
    """

    steps: int
    batch_size: int
    learning_rate: float
    draws: int


def gilbo(
    generate: Generate,
    code_dim: int,
    key: jax.Array,
    steps: int = 2000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    draws: int = 10_000,
) -> Score:
    """E_{p(z) p(x|z)}[ log e(z|x) - log p(z) ] in nats, p(z) = N(0, I); at most I(x; z).

    As Alemi and Fischer (2018) define it, no constant dropped. The encoder e is a Gaussian of
    diagonal covariance with the network of the VAEs, trained to maximise the bound on fresh draws
    and then held fixed: on further draws the value is a lower bound in expectation, whatever the
    training reached. It can be below 0, which only says that e is worse than p. A generator
    without noise may tell of its code without limit; then the value is how far e got.

    Args:
      generate: codes [B, d] -> images [B, H, W, C] in [-1, 1]; pure JAX. As
        `jax.tree_util.Partial(model.generate, variables)` its weights are an argument of the
        compiled program, not copied into it.
      code_dim: d.
      key: a JAX random key; it decides the encoder's first weights and every draw.

    Details: `per_dimension` [d], each dimension's share of the value, and `training`, the bound
    over each of 20 parts of the training, which shows whether it has settled.

    Raises:
      UserError: a number is not 1 or more, or the value is not finite.
    """
    protocol = Protocol(steps, batch_size, learning_rate, draws)
    for name, number in (("code_dim", code_dim), *dataclasses.asdict(protocol).items()):
        if not (number > 0 if name == "learning_rate" else number >= 1):
            raise UserError(f"gilbo's {name}={number} must be positive")
    generate = generate if isinstance(generate, Partial) else Partial(generate)
    key_init, key_train, key_draws = jax.random.split(key, 3)
    encoder = ConvEncoder(code_dim)
    params, bounds = _trained(encoder, generate, protocol, key_init, key_train)
    terms = _terms_of(encoder, params, generate, draws, key_draws)
    if not np.isfinite(terms).all():
        raise UserError(
            "GILBO is not finite: the images are not, or the encoder diverged; try a smaller "
            f"learning_rate than {learning_rate}"
        )
    words = np.asarray(jax.random.key_data(key)).ravel()
    return Score(
        value=float(terms.sum(axis=1).mean()),
        interval=_interval(terms.sum(axis=1), np.random.default_rng(words)),
        metric="gilbo",
        protocol="conv_encoder",
        settings=dataclasses.asdict(protocol),
        dataset="",
        factor_names=(),
        key=words.tolist(),
        details={
            "per_dimension": terms.mean(axis=0),
            "training": [float(np.mean(part)) for part in np.array_split(bounds, min(20, steps))],
        },
    )


def _bound(encoder: ConvEncoder, params: Any, generate: Generate, z: jax.Array) -> jax.Array:
    """log e(z_j|x) - log p(z_j) at x = generate(z): [B, d] -> [B, d]."""
    mean, log_variance = encoder.apply(params, 0.5 * (generate(z) + 1.0))
    prior = objectives.gaussian_log_density(z, jnp.zeros_like(z), jnp.zeros_like(z))
    return objectives.gaussian_log_density(z, mean, log_variance) - prior


def _trained(
    encoder: ConvEncoder,
    generate: Generate,
    protocol: Protocol,
    key_init: jax.Array,
    key: jax.Array,
) -> tuple[Any, np.ndarray]:
    """The encoder's parameters after training, and the bound at each step, [steps]."""
    params = _init(encoder, generate, key_init)
    state, bounds = (params, _optimizer(protocol).init(params)), []
    for first in range(0, protocol.steps, STEPS_PER_DISPATCH):
        numbers = np.arange(first, min(first + STEPS_PER_DISPATCH, protocol.steps))
        state, values = _train_steps(encoder, protocol, state, generate, key, numbers)
        bounds.append(values)
    return state[0], np.concatenate([np.asarray(values, np.float64) for values in bounds])


# Encoder and protocol are compared by value: the scores of many checkpoints share their programs.
@partial(jax.jit, static_argnames="encoder")
def _init(encoder: ConvEncoder, generate: Generate, key: jax.Array) -> Any:
    return encoder.init(key, generate(jnp.zeros((1, encoder.outputs))))


def _optimizer(protocol: Protocol) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(protocol.learning_rate, protocol.steps))


@partial(jax.jit, static_argnames=("encoder", "protocol"), donate_argnames="state")
def _train_steps(
    encoder: ConvEncoder,
    protocol: Protocol,
    state: tuple,
    generate: Generate,
    key: jax.Array,
    numbers: jax.Array,
) -> tuple[tuple, jax.Array]:
    """The steps with these numbers [K]: (parameters and Adam's moments, the bound at each [K])."""
    shape = (protocol.batch_size, encoder.outputs)

    def body(state: tuple, number: jax.Array) -> tuple:
        params, moments = state
        z = jax.random.normal(jax.random.fold_in(key, number), shape)

        def loss(params: Any) -> jax.Array:
            return -jnp.mean(jnp.sum(_bound(encoder, params, generate, z), axis=1))

        value, gradients = jax.value_and_grad(loss)(params)
        updates, moments = _optimizer(protocol).update(gradients, moments)
        return (optax.apply_updates(params, updates), moments), -value

    return jax.lax.scan(body, state, numbers)


def _terms_of(
    encoder: ConvEncoder, params: Any, generate: Generate, draws: int, key: jax.Array
) -> np.ndarray:
    """The bound's terms at fresh draws, float64 [draws, d]."""
    size = min(draws, BATCH_SIZE)
    keys = jax.random.split(key, -(-draws // size))
    parts = [_some_terms(encoder, size, params, generate, k) for k in keys]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])[:draws]


@partial(jax.jit, static_argnames=("encoder", "size"))
def _some_terms(
    encoder: ConvEncoder, size: int, params: Any, generate: Generate, key: jax.Array
) -> jax.Array:
    return _bound(encoder, params, generate, jax.random.normal(key, (size, encoder.outputs)))


def _interval(totals: np.ndarray, rng: np.random.Generator) -> Interval:
    """The middle 95 % of the mean of totals [N] when they are drawn anew."""
    count = len(totals)
    means = [
        rng.multinomial(count, np.full(count, 1 / count), 50) @ totals / count
        for _ in range(RESAMPLES // 50)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)
