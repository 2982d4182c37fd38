"""What makes a metric of how it measures: the arguments, the draws and the record all share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol

import jax
import numpy as np

from ibgan_jax.errors import UserError
from ibgan_jax.metrics.encoding import BATCH_SIZE, CodesOf, Encoder, FactorDataset
from ibgan_jax.metrics.score import Result, Score

ARGUMENTS = """
    Args:
      codes_of: images [B, H, W, C] in [-1, 1] -> codes [B, d], or an Encoder to be shared.
      dataset: has `name`, `factor_names`, `factor_sizes`, `images(factors)`.
      key: a JAX random key; it alone decides the draws. Metrics with the same key begin with the
        same draws.
      protocol: a name in the function's `protocols`, which holds their numbers; the first is the
        default.
      batch_size: images encoded at a time.

    Raises:
      UserError: unknown protocol, no factors or none that varies, an Encoder of another dataset,
        codes that are not finite [B, d], or no scikit-learn where its classifiers are needed.
    """


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a metric starts from.

    Attributes:
      encode: factors -> codes.
      rng: decides every draw; made of the key alone.
      key: the key's words.
    """

    encode: Encoder
    rng: np.random.Generator
    key: list[int]

    def draw(self, count: int) -> np.ndarray:
        """Factor indices int [count, F], each combination as likely as any other."""
        sizes = self.encode.sizes
        return self.rng.integers(0, sizes, (count, len(sizes)))

    def score(
        self, record: type[Score], metric: str, protocol: str, settings: Any, result: Result
    ) -> Score:
        """The result as a Score of this dataset and key."""
        dataset = self.encode.dataset
        return record(
            **result._asdict(),
            metric=metric,
            protocol=protocol,
            settings=dataclasses.asdict(settings),
            dataset=dataset.name,
            factor_names=tuple(dataset.factor_names),
            key=self.key,
        )


class Metric(Protocol):
    """A public metric.

    Attributes:
      protocols: name -> its numbers, a frozen dataclass; the default one first.
    """

    protocols: dict[str, Any]

    def __call__(
        self,
        codes_of: CodesOf | Encoder,
        dataset: FactorDataset,
        key: jax.Array,
        protocol: str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Score: ...


def metric(
    name: str, protocols: dict[str, Any], record: type[Score] = Score
) -> Callable[[Callable[[Setup, Any], Result]], Metric]:
    """Makes the Metric `name` of a function (setup, a protocol's numbers) -> Result.

    The function's docstring says what is measured; that of the Metric adds the arguments. `record`
    is the Score that it returns.
    """

    def make(measure: Callable[[Setup, Any], Result]) -> Metric:
        def score(
            codes_of: CodesOf | Encoder,
            dataset: FactorDataset,
            key: jax.Array,
            protocol: str | None = None,
            batch_size: int = BATCH_SIZE,
        ) -> Score:
            protocol = protocol or next(iter(score.protocols))
            settings = settings_of(score.protocols, protocol)
            setup = begin(codes_of, dataset, key, batch_size)
            return setup.score(record, name, protocol, settings, measure(setup, settings))

        score.__name__ = score.__qualname__ = measure.__name__
        score.__module__ = measure.__module__
        score.__doc__ = f"{measure.__doc__.rstrip()}\n{ARGUMENTS}"
        score.protocols = protocols
        return score

    return make


def combinations_of(
    metric: Metric, dataset: FactorDataset, key: jax.Array, protocol: str | None = None
) -> np.ndarray:
    """The combinations of factors int [N, F] that a metric asks codes of, each once, ascending.

    The metric itself says it, of codes that are all 0. It is true of other codes where its draws do
    not depend on them, as the FactorVAE score's do not.

    Raises:
      UserError: unknown protocol, or no factors or none that varies.
    """
    blank = SimpleNamespace(
        name=dataset.name,
        factor_names=dataset.factor_names,
        factor_sizes=dataset.factor_sizes,
        images=lambda factors: factors,
    )
    encode = Encoder(lambda images: np.zeros((len(images), 1)), blank)
    metric(encode, blank, key, protocol)
    return encode.known


def settings_of(protocols: dict[str, Any], protocol: str) -> Any:
    """The numbers of a named protocol.

    Raises:
      UserError: there is none of that name.
    """
    if protocol not in protocols:
        raise UserError(f"unknown protocol {protocol!r}; choose one of: {', '.join(protocols)}")
    return protocols[protocol]


def begin(
    codes_of: CodesOf | Encoder, dataset: FactorDataset, key: jax.Array, batch_size: int
) -> Setup:
    """The setup of one metric; arguments as in ARGUMENTS."""
    encode = codes_of
    if not isinstance(encode, Encoder):
        encode = Encoder(codes_of, dataset, batch_size)
    elif encode.dataset is not dataset:
        raise UserError(f"this encoder is of {encode.dataset.name}, not of {dataset.name}")
    words = np.asarray(jax.random.key_data(key)).ravel()
    return Setup(encode, np.random.default_rng(words), words.tolist())
