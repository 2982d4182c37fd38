"""Processes that watch each other, here as threads of one that talk through real sockets."""

import queue
import socket
import time

import pytest

from ibgan_jax import watch
from ibgan_jax.watch import Address, Watch


@pytest.fixture
def three(monkeypatch):
    """Process 0, 1 and 2 with what each has learned: [(Watch, Queue of (reason, status))]."""
    monkeypatch.setattr(watch, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(watch, "SILENT_SECONDS", 0.6)
    learned = [queue.Queue() for _ in range(3)]
    made = [Watch(i, 3, lambda *loss, i=i: learned[i].put(loss)) for i in range(3)]
    address = made[0].listen("127.0.0.1")
    for other in made[1:]:
        other.join(Address.of(address.as_text()))
    wait_for(lambda: len(made[0]._lines) == 2)
    yield list(zip(made, learned, strict=True))
    for one in made:
        one.leave()


def wait_for(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_nobody_is_lost_while_all_are_there(three):
    time.sleep(1.5)  # more than twice as long as silence may last
    assert all(learned.empty() for _, learned in three)


def test_all_may_end(three):
    for one, _ in (three[1], three[0], three[2]):
        one.leave()
    time.sleep(0.3)
    assert all(learned.empty() for _, learned in three)


@pytest.mark.parametrize(("gone", "left"), [(1, (0, 2)), (0, (1, 2))])
def test_a_process_that_is_cut_off_is_named_by_all_others(three, gone, left):
    killed = three[gone][0]
    killed._over = True  # as a process that is no more, it says nothing
    for line in killed._lines:
        line.close()
    for place in left:
        reason, status = three[place][1].get(timeout=5)
        assert reason.startswith(f"process {gone} of 3 is lost: killed") and status == 1
    assert three[gone][1].empty()


def test_a_silent_process_is_lost(three):
    stopped = three[2][0]
    stopped._tell = lambda message: None
    reason, _ = three[0][1].get(timeout=5)
    assert reason.startswith("process 2 of 3 is lost: silent for")
    assert three[1][1].get(timeout=5)[0] == reason


def test_a_failure_is_told_with_its_reason_and_status(three):
    three[1][0].leave("no such file: x.zip", 2)
    told = "process 1 of 3 failed: no such file: x.zip"
    assert three[0][1].get(timeout=5) == (told, 2)
    assert three[2][1].get(timeout=5) == (told, 2)


def test_who_never_joins_is_missed(monkeypatch):
    monkeypatch.setattr(watch, "CONNECT_SECONDS", 0.3)
    learned = queue.Queue()
    alone = Watch(0, 2, lambda *loss: learned.put(loss))
    address = alone.listen("127.0.0.1")
    stranger = socket.create_connection((address.host, address.port))
    stranger.sendall(b'{"token": "guessed", "process": 1}\n')
    assert learned.get(timeout=5) == ("process 1 of 2 never joined", 1)
    assert stranger.recv(1) == b""  # and is not listened to
    alone.leave()
