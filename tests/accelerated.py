"""launch.py on the small run of tiny.py, in the way that an accelerator takes.

All members in one vmap, records beside the steps, scores of all members in one program.
"""

import runpy

import tiny

from ibgan_jax import distributed
from ibgan_jax.training import codes


def accelerate(put=setattr):
    """Makes a CPU be taken for an accelerator; `put` may be monkeypatch.setattr."""
    put(distributed, "members_together", lambda mesh, members: members)
    put(distributed, "records_beside_steps", lambda mesh: mesh.size == 1)
    put(distributed, "check_precision", lambda name: None)
    put(codes, "many_at_once", lambda mesh: True)


if __name__ == "__main__":
    tiny.shrink()
    accelerate()
    runpy.run_path(str(tiny.ROOT / "launch.py"), run_name="__main__")
