"""The one place that chooses what convolutions are computed from.

A program is traced inside `using(...)`, as it is inside `jax.default_matmul_precision`; without it
the choice is the platform's own, in float32.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp

AUTO = "auto"
FORMS = ("filtered", "patches", "lax")
# What the factors of a product are stored as, from before patches are laid out; sums are float32.
STORAGE = {"bfloat16": jnp.bfloat16, "float16": jnp.float16}


@dataclasses.dataclass(frozen=True)
class Formulation:
    """How a convolution becomes matrix products.

    Attributes:
      form: one of FORMS.
        filtered: minimal filtering where it serves, else patches.
        patches: every patch laid out, one product a convolution.
        lax: XLA's own convolution, but for a kernel as large as its image, which is a product.
      storage: the dtype that factors are rounded to before patches are laid out; None keeps them.
      cpu: whether products are written in the way that XLA runs fast on a CPU (`linear_maps`).
    """

    form: str
    storage: jnp.dtype | None = None
    cpu: bool = False

    @property
    def scale(self) -> float:
        """What cotangents are multiplied by before they are rounded, a power of two.

        The smallest normal float16 is 6e-5, above many gradients; 2^10 brings them into range, and
        is taken out of the product's float32 result again, so no other number changes.
        """
        return 1024.0 if self.storage == jnp.float16 else 1.0


def choose(platform: str, form: str = AUTO, precision: str = "float32") -> Formulation:
    """Chooses how the convolutions of a program are computed.

    AUTO is minimal filtering on a CPU and patches elsewhere. On a CPU a step of IB-GAN then takes
    0.83 times as long as with patches and 0.24 times as long as with lax
    (`results/benchmarks/all-cpu2.json`). On a GPU bytes decide. These are estimates from below, of
    IB-GAN's step at width 16 with ten members in one program, from the launches, bytes and FLOP of
    the program that XLA makes for an H100 (`results/benchmarks/compiled-h100.json`). An H200 took
    1.3 times as long as estimated with patches at each precision
    (`results/benchmarks/gpu-h200.json`):

    | form | precision | launches | GB a member | ms, H100 | ms, H200 |
    |---|---|---|---|---|---|
    | patches | float32 | 328 | 1.78 | 0.87 | 0.76 |
    | filtered | float32 | 420 | 1.94 | 0.81 | 0.69 |
    | patches | tf32 | 333 | 1.78 | 0.63 | 0.45 |
    | patches | bfloat16 | 361 | 1.01 | 0.38 | 0.28 |
    | patches | float16 | 366 | 1.01 | 0.38 | 0.28 |
    | lax | bfloat16 | 371 | 0.82 | 0.35 | 0.28 |

    What cuDNN makes of lax's convolutions, which ten members turn into grouped ones, is not known.

    Args:
      platform: "cpu", "gpu" or "tpu".
      form: AUTO or one of FORMS.
      precision: a key of `distributed.PRECISIONS`; those in STORAGE are stored in 16 bits.

    Raises:
      ValueError: no such form, or one that cannot store 16 bits.
    """
    storage = STORAGE.get(precision)
    if form == AUTO:
        form = "filtered" if platform == "cpu" and storage is None else "patches"
    if form not in FORMS:
        raise ValueError(f"{form!r} is not one of: {', '.join((AUTO, *FORMS))}")
    if form == "filtered" and storage is not None:
        raise ValueError(f"'filtered' adds up before it rounds: not with {precision}")
    return Formulation(form, storage, platform == "cpu")


_CURRENT: contextvars.ContextVar[Formulation | None] = contextvars.ContextVar("form", default=None)


@contextlib.contextmanager
def using(formulation: Formulation) -> Iterator[None]:
    """Traces what is inside by `formulation`.

    A function that `jax.jit` has traced before keeps the formulation of that time.
    """
    token = _CURRENT.set(formulation)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> Formulation:
    """The formulation of the surrounding `using`, else the platform's choice."""
    return _CURRENT.get() or choose(jax.default_backend())
