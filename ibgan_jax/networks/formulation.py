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
    """The formulation for a platform ("cpu", "gpu", "tpu").

    Estimates for IB-GAN's step at width 16, ten members in one program, ms a member on an H100,
    from the bytes, FLOP and launches of the compiled programs (`results/benchmarks/gpu-model.json`):

    | form | precision | launches | GB a member | ms |
    |---|---|---|---|---|
    """
    if form == AUTO:
        form = "filtered" if platform == "cpu" else "patches"
    storage = STORAGE.get(precision)
    if form not in FORMS:
        raise ValueError(f"{form!r} is not one of: {', '.join((AUTO, *FORMS))}")
    if form == "filtered" and storage is not None:
        raise ValueError(f"form 'filtered' sums before it rounds: not with {precision} storage")
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
