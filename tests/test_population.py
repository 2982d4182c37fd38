"""Members that train together: each equals its run alone, through kills, divergence and groups.

On one device the comparison is bit for bit: members take turns in the program that a run alone
compiles. Where several devices each take a member, sums are formed otherwise than by a run alone
that is spread over all of them; tests/test_step.py compares those.
"""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from ibgan_jax import config as configs
from ibgan_jax import distributed, memory
from ibgan_jax.errors import UserError
from ibgan_jax.networks.formulation import STORAGE
from ibgan_jax.training import evaluation, loop, member, reporting
from ibgan_jax.training.population import Population, Programs
from ibgan_jax.training.run import build
from ibgan_jax.training.step import make_train_steps
from ibgan_jax.training.workdir import Workdir

ALONE = "quickstart-ibgan-beta0.2-seed1"
NAMES = [f"quickstart-ibgan-beta{beta}-seed{seed}" for beta in (0.07, 0.2) for seed in (0, 1)]


@pytest.fixture(autouse=True)
def one_device(small, monkeypatch):
    monkeypatch.setattr(distributed, "devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(reporting, "finish", lambda *args: None)


def population(**changed):
    made = tiny.config(**{"train_steps": 12, **changed})
    made.population.seeds, made.population.beta = (0, 1), (0.07, 0.2)
    return made


def train(home, names=NAMES, **changed):
    """Trains the members of those names together and returns what is logged."""
    lines = []
    runs = [(c, Workdir(home / name)) for name, c in configs.members(population(**changed))]
    loop.train_together([run for run in runs if run[1].path.name in names], lines.append)
    return lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled):
    """The folder of four members trained together without a break, and what was logged."""
    home = tmp_path_factory.mktemp("whole")
    with tiny.quick(compiled), pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "devices", lambda: jax.devices()[:1])
        patch.setattr(reporting, "finish", lambda *args: None)
        return home, train(home)


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "copy")


def assert_same(home, other, names=NAMES):
    for name in names:
        states = (tiny.state(folder / name, 12) for folder in (home, other))
        assert tiny.differing(*states) == [], name
        assert tiny.metrics(home / name) == tiny.metrics(other / name), name


def files(path):
    """Names of what a run leaves, but for TensorBoard's and Orbax's, which are drawn or timed.

    Where the time of a launch went is told in the folder that the command fills.
    """
    found = [*path.glob("*"), *path.glob("checkpoints/*"), *path.glob("figures/*/*")]
    return {p.relative_to(path) for p in found if "tfevents" not in p.name} - {Path("timing.json")}


def test_members_are_every_value_with_every_seed():
    found = dict(configs.members(population()))
    assert list(found) == NAMES
    made = found[ALONE]
    assert (made.seed, made.hparams.beta) == (1, 0.2)
    assert not any(made.population.values())
    assert made.hparams.lr_encoder == tiny.config().hparams.lr_encoder
    assert configs.members(tiny.config()) == []


def test_a_member_is_bit_for_bit_its_run_alone(whole, tmp_path):
    """And an ordinary workdir: the same files, records and checkpoints."""
    path = tmp_path / ALONE
    tiny.train(path, seed=1, hparams_beta=0.2, train_steps=12)
    assert_same(whole[0], tmp_path, [ALONE])
    member, run = whole[0] / ALONE, tmp_path / ALONE
    assert files(member) == files(run)
    recorded = [json.loads((path / "config.json").read_text()) for path in (member, run)]
    assert recorded[0] == recorded[1]


@pytest.mark.parametrize("name", distributed.PRECISIONS)
def test_the_precision_is_that_of_every_product_of_the_steps(name, monkeypatch):
    """And of nothing else. A CPU takes no notice, so what the program asks for is looked at."""
    monkeypatch.setattr(distributed, "check_precision", lambda _: None)
    run = build(tiny.config(train_precision=name), log=lambda line: None)
    texts = []

    def traced(*args):
        made = make_train_steps(*args)

        def lower(*shapes):
            texts.append(str(made.trace(*shapes).jaxpr))
            raise KeyboardInterrupt  # a CPU would refuse some

        return SimpleNamespace(lower=lower)

    monkeypatch.setattr("ibgan_jax.training.population.make_train_steps", traced)
    with pytest.raises(KeyboardInterrupt):
        Programs(run).of(1, 0)
    asked = Counter(re.findall(r"dot_general\[.*?precision=([^\n]*)", texts[0], re.DOTALL))
    wanted = distributed.PRECISIONS[name]
    exact = "(Precision.HIGHEST, Precision.HIGHEST)"  # filtering's small products, of kernels
    stored = "(Precision.DEFAULT, Precision.DEFAULT)"  # of factors that have 16 bits already
    assert set(asked) <= {wanted, stored if name in STORAGE else exact}
    assert asked[exact if name == "float32" else wanted] > (10 if name in STORAGE else 20)
    assert asked[stored] > 20 or name not in STORAGE
    width = {"bfloat16": "bf16", "float16": "f16"}.get(name, "none")
    assert (f":{width}[" in texts[0]) == (name in STORAGE)
    assert jax.config.jax_default_matmul_precision == "highest"


def test_members_differ(whole):
    params = [tiny.state(whole[0] / name, 12) for name in NAMES]
    key = next(name for name in params[0] if "generator" in name and "kernel" in name)
    assert len({state[key][2] for state in params}) == 4


def test_a_kill_between_the_saves_of_two_members(whole, copied):
    """One lacks the newest checkpoint, one had begun it; the others go back to the one before."""
    shutil.rmtree(copied / NAMES[0] / "checkpoints/12")
    (copied / NAMES[1] / "checkpoints/12/SHA256SUMS").unlink()
    lines = train(copied)
    assert [line for line in lines if "resuming" in line] == [
        f"resuming {copied / name} at step 6" for name in NAMES
    ]
    assert_same(whole[0], copied)


@pytest.mark.slow
def test_members_that_stand_far_apart_train_apart(whole, copied):
    """A member added later starts anew; those that are done are left as they are."""
    shutil.rmtree(copied / NAMES[2])
    lines = train(copied)
    assert sum("nothing to train" in line for line in lines) == 3
    assert_same(whole[0], copied)


def test_nobody_goes_far_back_for_company(copied):
    """With one checkpoint left, at step 12, the start is the one before it, but too far away."""
    shutil.rmtree(copied / NAMES[2])
    for name in (NAMES[0], NAMES[1], NAMES[3]):
        for path in (copied / name / "checkpoints").iterdir():
            if path.name != "12":
                shutil.rmtree(path)
    lines = train(copied, train_steps=14)
    assert [line for line in lines if "resuming" in line] == [
        f"resuming {copied / name} at step 12" for name in (NAMES[0], NAMES[1], NAMES[3])
    ]


def test_what_does_not_fit_trains_in_groups(whole, tmp_path, monkeypatch):
    run = build(tiny.config(), log=lambda line: None)
    program = Programs(run).of(4, 0)
    assert program.state_bytes == sum(
        x.size * x.dtype.itemsize for x in jax.tree.leaves(run.state_template())
    )
    lines, used, free = [], 2**30, 9 * program.state_bytes + program.work_bytes
    monkeypatch.setattr(memory, "available", lambda: memory.Memory(used, free))
    assert Programs(run).fitting(4, lines.append) == 3
    assert "; 3 train at a time, the others after them" in lines[0]
    few = memory.Memory(used, program.work_bytes)
    monkeypatch.setattr(memory, "available", lambda: few)
    with pytest.raises(UserError, match=r"a member needs .* MiB .* are free"):
        Programs(run).fitting(4)
    monkeypatch.setattr(Programs, "fitting", lambda *_: 1)
    train(tmp_path, NAMES[:2])
    assert_same(whole[0], tmp_path, NAMES[:2])


@pytest.mark.slow  # tests/test_step.py compares the program itself, in float64
def test_all_members_in_one_vmap_as_on_an_accelerator(tmp_path, monkeypatch):
    """Nothing is learned, so that rounding stays rounding; all else tells whose it is."""
    still = {f"hparams_lr_{player}": 0.0 for player in ("encoder", "generator", "reconstructor")}
    still |= {"hparams_lr_discriminator": 0.0, "train_steps": 8}
    unscored = lambda runs, *_: [({}, None)] * len(runs)  # noqa: E731
    monkeypatch.setattr(evaluation, "score_members", unscored)  # a vote may be very close
    train(tmp_path / "turns", **still)
    monkeypatch.setattr(distributed, "members_together", lambda mesh, members: members)
    train(tmp_path / "vmap", **still)
    for name in NAMES:
        turns, vmap = (tmp_path / how / name for how in ("turns", "vmap"))
        for one, other in zip(tiny.metrics(turns), tiny.metrics(vmap), strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-6)
        one, other = tiny.state(turns, 8), tiny.state(vmap, 8)
        for key, (dtype, shape, content) in one.items():
            if key.startswith(".batch_stats"):
                numbers = (np.frombuffer(x, dtype) for x in (content, other[key][2]))
                np.testing.assert_allclose(*numbers, rtol=1e-3, atol=1e-5, err_msg=key)
            elif not key.startswith(".optimizer"):  # which divides rounding by rounding
                assert other[key] == (dtype, shape, content), key


def breaking(step, turn):
    """An `advance` whose update after `step` breaks one member's generator."""
    advance = Population.advance

    def wrapped(self, batches):
        kept = self._hparams[turn]
        if int(self._states[turn].step[0]) == step:
            rate = jax.device_put(kept["lr_generator"] * 1e36, kept["lr_generator"].sharding)
            self._hparams[turn] = kept | {"lr_generator": rate}
        advance(self, batches)
        self._hparams[turn] = kept

    return wrapped


def test_a_member_that_diverges_is_left_and_the_others_go_on(whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Population, "advance", breaking(8, turn=2))
        lines = train(tmp_path)
    (said,) = [line for line in lines if "last good checkpoint" in line]
    lost, others = NAMES[2], [name for name in NAMES if name != NAMES[2]]
    assert said.startswith(f"{tmp_path / lost}: ") and "at step 10" in said
    assert_same(whole[0], tmp_path, others)
    assert json.loads((tmp_path / lost / "diverged.json").read_text())["step"] == 10
    assert max(int(p.name) for p in (tmp_path / lost / "checkpoints").iterdir()) == 6
    # Tried again without the fault, alone, it gets where it would have been.
    train(tmp_path, [lost])
    assert not (tmp_path / lost / "diverged.json").exists()
    assert_same(whole[0], tmp_path)


def test_when_all_diverge_the_run_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(Population, "advance", breaking(0, turn=0))
    with pytest.raises(member.DivergedError, match="try smaller learning rates"):
        train(tmp_path, [NAMES[0]])


def test_a_signal_saves_every_member(whole, tmp_path, monkeypatch):
    asked = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_stop_signals", lambda: _yielding(lambda: next(asked, True)))
        with pytest.raises(loop.InterruptedRunError, match="saved at step 4"):
            train(tmp_path)
    for name in NAMES:
        assert [p.name for p in (tmp_path / name / "checkpoints").iterdir()] == ["4"]
    train(tmp_path)
    assert_same(whole[0], tmp_path)


def _yielding(value):
    import contextlib

    return contextlib.nullcontext(value)


def test_runs_of_other_programs_do_not_train_together(tmp_path):
    runs = [(tiny.config(train_batch_size=size), Workdir(tmp_path / str(size))) for size in (8, 4)]
    with pytest.raises(ValueError, match=r"4 cannot train together with .*8"):
        loop.train_together(runs)
    assert list(tmp_path.iterdir()) == []


def test_a_population_is_no_single_run(tmp_path):
    with pytest.raises(UserError, match="names a population"):
        loop.train(population(), Workdir(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
