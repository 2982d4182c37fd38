"""One process of a job, for test_processes.py: 20 steps of the small run, or what it restores.

python member.py COORDINATOR PROCESSES PROCESS train|restore WORKDIR [WORKDIR ...]
"""

import hashlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import tiny

STEPS = 20
# With the quickstart's own, rounding of float64 grows some tenfold in a step.
PAPERS_RATES_AND_NOISE = {
    **dict.fromkeys(
        ("hparams_lr_encoder", "hparams_lr_generator", "hparams_lr_reconstructor"), 5e-5
    ),
    "hparams_lr_discriminator": 1e-6,
    "hparams_noise_start": 1.0,
}


def in_double_precision():
    """Makes states of float64, for float32 tells little of 20 steps of so small a network.

    RMSProp's first steps are as long for a gradient that is rounding alone as for any other, so
    differences of 1e-7 between meshes grow to some 1e-5 by themselves.
    """
    from ibgan_jax.training import state as states

    create = states.create

    def double(x):
        return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

    states.create = lambda *given: jax.tree.map(double, create(*given))


def train(workdir):
    """Trains, saves, and returns the loss of G of every step and the digest of the state."""
    from ibgan_jax.data.order import Order
    from ibgan_jax.training.member import Member
    from ibgan_jax.training.population import Population, Programs
    from ibgan_jax.training.run import build
    from ibgan_jax.training.workdir import Workdir

    config = tiny.config(train_steps=STEPS, **PAPERS_RATES_AND_NOISE)
    run = build(config, log=lambda line: None)
    member = Member(run, Workdir(workdir), print)
    program = Programs(run).of(1, 0)
    population = Population(program, [member.resume()], [run.hparams])
    images = config.train.batch_size * run.model.batches
    orders = [Order(run.dataset.size, 0) for _ in population.fed]
    part = population.batch_part
    for batch in run.dataset.batches(orders, 0, STEPS, program.steps, images, part):
        population.advance(batch)
    losses = population.fetch()[0]["loss/generator"]
    state = population.state(0)
    member.save(STEPS, state, None)
    member.close()
    return {"losses": losses.tolist(), "state": digest(state)}


def restore(workdirs):
    """The digests of the states that are saved in `workdirs`."""
    from ibgan_jax.training import trained
    from ibgan_jax.training.run import build
    from ibgan_jax.training.workdir import Workdir

    run = build(tiny.config(train_steps=STEPS, **PAPERS_RATES_AND_NOISE), log=lambda line: None)
    template = run.state_template()
    found = [trained.checkpointed(template, Workdir(Path(w)), STEPS, print) for w in workdirs]
    return [digest(state) for state in found]


def digest(state):
    content = [value for _, value in sorted(tiny.raw(state).items())]
    return hashlib.sha256(b"".join(data for _, _, data in content)).hexdigest()


if __name__ == "__main__":
    from ibgan_jax import job

    coordinator, processes, process, work, *workdirs = sys.argv[1:]
    if int(processes) > 1:
        job.start(coordinator, int(processes), int(process))
    tiny.shrink()
    in_double_precision()
    done = train(Path(workdirs[0])) if work == "train" else restore(workdirs)
    print(json.dumps(done))
    job.end()
