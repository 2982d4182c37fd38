"""What is recorded beside the steps: in order, bounded, and the same bit for bit."""

import contextlib
import shutil
import threading

import jax
import pytest
import tiny

from ibgan_jax import distributed
from ibgan_jax.errors import UserError
from ibgan_jax.training import evaluation, loop, member, records, warming
from ibgan_jax.training.population import Population
from ibgan_jax.training.records import EVALUATIONS, Records
from ibgan_jax.training.run import build
from ibgan_jax.training.timing import Timing

both = pytest.mark.parametrize("beside", [False, True])


@both
def test_pieces_are_done_in_their_order(beside):
    done = []
    with Records(beside, 1, Timing()) as taken:
        for number in range(records.LONGEST + 50):
            taken.hand_over(lambda n=number: done.append((n, threading.current_thread())))
        taken.drain()
        assert [number for number, _ in done] == list(range(records.LONGEST + 50))
    threads = {thread for _, thread in done}
    assert len(threads) == 1 and (threading.current_thread() in threads) != beside


def test_no_more_copies_wait_than_two_evaluations_hold():
    gate, members = threading.Event(), 3
    with Records(True, members, Timing()) as taken:
        for _ in range(EVALUATIONS):
            taken.make_room(members)
            taken.hand_over(gate.wait, members)
        assert taken.copies == EVALUATIONS * members
        threading.Timer(0.2, gate.set).start()
        taken.make_room(members)
        assert gate.is_set() and taken.copies <= members


@both
def test_what_goes_wrong_is_raised_and_nothing_comes_after_it(beside):
    done = []

    def wrong():
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"), Records(beside, 1, Timing()) as taken:
        taken.hand_over(lambda: done.append(1))
        taken.hand_over(wrong)
        taken.hand_over(lambda: done.append(2))
        taken.drain()
    assert done == [1]


def test_leaving_without_a_drain_raises_too():
    with pytest.raises(ZeroDivisionError), Records(True, 1, Timing()) as taken:
        taken.hand_over(lambda: 1 / 0)


@pytest.fixture
def beside(small, monkeypatch):
    """As on an accelerator."""
    monkeypatch.setattr(distributed, "devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(distributed, "records_beside_steps", lambda mesh: True)
    monkeypatch.setattr(warming, "_use", lambda *_: None)


@pytest.fixture
def alone(small, tmp_path, monkeypatch):
    """A small run on one device, recorded at once."""
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "devices", lambda: jax.devices()[:1])
        tiny.train(tmp_path / "alone")
    return tmp_path / "alone"


def threads_of(monkeypatch, module, name):
    """Which threads call it from now on."""
    threads, function = set(), getattr(module, name)

    def noted(*given):
        threads.add(threading.current_thread())
        return function(*given)

    monkeypatch.setattr(module, name, noted)
    return threads


def test_the_files_are_those_of_a_run_recorded_at_once(alone, beside, tmp_path, monkeypatch):
    threads = threads_of(monkeypatch, evaluation, "score_members")
    tiny.train(tmp_path / "run")
    assert len(threads) == 1 and threading.current_thread() not in threads
    assert tiny.differing(tiny.state(alone), tiny.state(tmp_path / "run")) == []
    assert tiny.metrics(alone) == tiny.metrics(tmp_path / "run")
    assert tiny.scores(alone) == tiny.scores(tmp_path / "run")
    for step in (18, 24):
        name = f"checkpoints/{step}/record/metadata"
        one, other = ((path / name).read_text() for path in (alone, tmp_path / "run"))
        assert one.split('"records"')[0] == other.split('"records"')[0]  # the window
    # A signal drains the queue first; the run goes on from there.
    shutil.rmtree(tmp_path / "run")
    asked = iter([False] * 6 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(
            loop, "_stop_signals", lambda: contextlib.nullcontext(lambda: next(asked, True))
        )
        with pytest.raises(loop.InterruptedRunError, match="saved at step 14"):
            tiny.train(tmp_path / "run")
    assert [record["step"] for record in tiny.metrics(tmp_path / "run")] == [4, 8, 12]
    tiny.train(tmp_path / "run")
    assert tiny.differing(tiny.state(alone), tiny.state(tmp_path / "run")) == []
    assert tiny.metrics(alone) == tiny.metrics(tmp_path / "run")


def test_a_divergence_beside_the_steps_is_noticed_and_later_steps_dropped(
    beside, tmp_path, monkeypatch
):
    advance = Population.advance

    def breaking(self, batches):
        kept = self._hparams[0]
        if int(self._states[0].step[0]) == 8:
            rate = jax.device_put(kept["lr_generator"] * 1e36, kept["lr_generator"].sharding)
            self._hparams[0] = kept | {"lr_generator": rate}
        advance(self, batches)
        self._hparams[0] = kept

    monkeypatch.setattr(Population, "advance", breaking)
    with pytest.raises(member.DivergedError, match="at step 10"):
        tiny.train(tmp_path)
    assert [record["step"] for record in tiny.metrics(tmp_path)] == [4, 8]
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) == 6


def test_what_the_disk_refuses_beside_the_steps_ends_the_run(beside, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(member.Checkpoints, "save", full)
    with pytest.raises(UserError, match=r"cannot save a checkpoint .*No space left"):
        tiny.train(tmp_path)
    assert [record["step"] for record in tiny.metrics(tmp_path)] == [4]


def test_what_training_needs_is_called_while_the_step_is_compiled(small, monkeypatch):
    monkeypatch.setattr(distributed, "devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(distributed, "records_beside_steps", lambda mesh: True)
    called = []
    for name in ("score_members", "progress_images", "bounds"):
        threads = threads_of(monkeypatch, evaluation, name)
        called.append((name, threads))
    run = build(tiny.config(), log=lambda line: None)
    timing = Timing()
    with warming.warmed(run, 1, timing):
        pass
    assert timing.measured("scores") is not None
    assert all(len(threads) == 1 for _, threads in called), called
    assert threading.current_thread() not in called[0][1]
