"""The one driver that draws factors and encodes their images on the device."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import jax
import numpy as np

from ibgan_jax.errors import UserError

CodesOf = Callable[[jax.Array], jax.Array]

# Small enough for a CPU's cache: 250 at a time take two to three times as long (676 us an image
# against 220 for the VAE's encoder on 2 cores, 557 against 335 for IB-GAN's q before its
# convolutions were filtered).
BATCH_SIZE = 50
# Votes are encoded and reduced in parts of about this many images, which bounds the host's memory.
IMAGES_AT_ONCE = 200_000
# Batches that a thread takes at a time, where there are several: an interrupt waits for that.
SHARE = 20


class FactorDataset(Protocol):
    """What a metric needs of a dataset: its ground-truth factors and the images they make."""

    name: str
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]

    def images(self, factors: np.ndarray) -> jax.Array:
        """Factor indices [B, F] -> images [B, H, W, C] in [-1, 1]."""


class Encoder:
    """Codes of factor combinations; each combination is encoded once and then remembered.

    Metrics that share an encoder share its codes: a data set is encoded once at most, however many
    votes are drawn from it. A dataset whose images are random beyond their factors shows one image
    of each combination.
    """

    def __init__(
        self,
        codes_of: CodesOf,
        dataset: FactorDataset,
        batch_size: int = BATCH_SIZE,
        threads: int = 1,
    ) -> None:
        """`codes_of`: images [B, H, W, C] -> codes [B, d]; `batch_size` images at a time.

        More than one of `threads` call `codes_of` and `dataset.images` side by side, in no order,
        outside any of the caller's JAX contexts: both must depend on their arguments alone.

        Raises UserError when the dataset has no factors, or none that varies.
        """
        if not dataset.factor_names:
            raise UserError(f"{dataset.name} has no ground-truth factors to score codes against")
        self.dataset = dataset
        self.sizes = np.asarray(dataset.factor_sizes)
        self.varied = np.flatnonzero(self.sizes > 1)
        if not len(self.varied):
            raise UserError(f"{dataset.name} has no factor with more than one value")
        self._codes_of, self._batch_size, self._threads = codes_of, batch_size, threads
        self._known = np.zeros(0, np.int64)
        self._codes: np.ndarray | None = None

    @property
    def combinations(self) -> int:
        """How many combinations of factors there are."""
        return math.prod(self.sizes.tolist())

    def __call__(self, factors: np.ndarray) -> np.ndarray:
        """Factor indices int [..., F] -> codes float64 [..., d].

        Raises:
          UserError: the codes are not finite [B, d].
        """
        indices = self._indices(factors)
        places = np.searchsorted(self._known, indices)
        # No index is -1, the entry behind the greatest that is known.
        new = indices[np.append(self._known, -1)[places] != indices]
        if new.size:
            new = np.unique(new)
            self._keep(new, self._encode(self._factors(new)))
            places = np.searchsorted(self._known, indices)
        return self._codes[places]

    @property
    def known(self) -> np.ndarray:
        """The combinations int [N, F] that have codes, each once."""
        return self._factors(self._known)

    def remember(self, factors: np.ndarray, codes: np.ndarray) -> None:
        """Takes the codes [N, d] of N different combinations [N, F], none of which has any yet.

        They must be what `codes_of` gives: nothing else tells the two apart afterwards.

        Raises:
          UserError: the codes are not finite.
        """
        self._keep(self._indices(factors), np.asarray(codes, np.float64))

    def reduced(
        self, factors: np.ndarray, reduce: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """`reduce` (codes [v, ..., d] -> [v, ...]) of factors' codes, [V, ..., F], in parts."""
        images = math.prod(factors.shape[:-1])
        parts = np.array_split(factors, max(1, min(len(factors), images // IMAGES_AT_ONCE)))
        return np.concatenate([reduce(self(part)) for part in parts])

    def _indices(self, factors: np.ndarray) -> np.ndarray:
        """Combinations int [..., F] -> their numbers int [...]."""
        return np.ravel_multi_index(tuple(np.moveaxis(factors, -1, 0)), tuple(self.sizes))

    def _factors(self, indices: np.ndarray) -> np.ndarray:
        """`_indices` undone."""
        return np.stack(np.unravel_index(indices, tuple(self.sizes)), axis=-1)

    def _keep(self, indices: np.ndarray, codes: np.ndarray) -> None:
        """Adds codes float64 [N, d] of combinations int [N] that are new."""
        if not np.isfinite(codes).all():
            raise UserError("codes must be finite numbers; got nan or infinity")
        if self._codes is not None:
            codes = np.concatenate([self._codes, codes])
        known = np.concatenate([self._known, indices])
        order = np.argsort(known, kind="stable")
        self._known, self._codes = known[order], codes[order]

    def _encode(self, factors: np.ndarray) -> np.ndarray:
        """Codes float64 [N, d]; every batch has the same shape, so that one program serves all."""
        pad = -len(factors) % self._batch_size
        padded = np.concatenate([factors, np.repeat(factors[:1], pad, axis=0)])
        batches = padded.reshape(-1, self._batch_size, factors.shape[-1])
        if self._threads == 1:
            parts = self._codes_of_batches(batches)
        else:
            shares = [batches[i : i + SHARE] for i in range(0, len(batches), SHARE)]
            with ThreadPoolExecutor(self._threads) as pool:
                parts = list(itertools.chain(*pool.map(self._codes_of_batches, shares)))
        shapes = {np.shape(part) for part in parts}
        shape = shapes.pop()
        if shapes or len(shape) != 2 or shape[0] != self._batch_size or not shape[1]:
            raise UserError(f"codes must be [{self._batch_size}, d]; got shape {shape}")
        return np.concatenate(parts, dtype=np.float64)[: len(factors)]

    def _codes_of_batches(self, batches: np.ndarray) -> list[np.ndarray]:
        """The codes of each batch of factors [B, F]."""
        # Nothing is fetched before all is dispatched: the device never waits for the host.
        parts = [self._codes_of(self.dataset.images(batch)) for batch in batches]
        return [np.asarray(part) for part in parts]


def draw_fixed(
    rng: np.random.Generator, varied: np.ndarray, votes: int, in_turn: bool = False
) -> np.ndarray:
    """The factor int [votes] that each vote is about: one of `varied`, at random or in turn."""
    places = np.arange(votes) % len(varied) if in_turn else rng.integers(0, len(varied), votes)
    return varied[places]
