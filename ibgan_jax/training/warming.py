"""Compiles what training needs besides its step, while the step is compiled."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from ibgan_jax import distributed
from ibgan_jax.training import evaluation
from ibgan_jax.training.run import Run
from ibgan_jax.training.state import all_finite
from ibgan_jax.training.timing import SCORES, Timing


@contextlib.contextmanager
def warmed(run: Run, members: int, timing: Timing) -> Iterator[None]:
    """Inside, and on an accelerator, a thread has a first state scored, drawn and thrown away.

    The device has nothing else to do then, and functions under jit keep what they are compiled to
    only when they are called. So `timing` knows before training how long a score takes. On a CPU
    the cores are full with compiling the step.
    """
    if not distributed.records_beside_steps(run.mesh):
        yield
        return
    thread = threading.Thread(target=_use, args=(run, members, timing), name="warm")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _use(run: Run, members: int, timing: Timing) -> None:
    """Calls what training calls. What fails here fails again where it is needed, and is said."""
    with contextlib.suppress(Exception):
        state = run.create_state()
        all_finite(state)
        mesh = distributed.mesh_for(members)
        together = distributed.members_together(mesh, members)
        distributed.member(mesh, distributed.stack(mesh, *[state] * together), 0)
        variables = [state.variables] * together
        for _ in range(2):  # the first one is compiled
            start = time.monotonic()
            # Step 1: FID, which takes long, is due at multiples of a longer period.
            evaluation.score_members([run] * together, variables, 1, lambda line: None)
        timing.note(SCORES, (time.monotonic() - start) / together)
        if not run.config.train.light:
            evaluation.progress_images(run, state)
        evaluation.bounds(run, state, evaluation.TRAINING_KEY)
