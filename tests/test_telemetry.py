"""metrics.jsonl, events, and how progress is shown."""

import io
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.training import progress
from ibgan_jax.training.progress import Progress
from ibgan_jax.training.telemetry import Telemetry, read_metrics


def run(workdir, first, last, every=10, lines=None):
    """One launch that logs every `every` steps and evaluates every 20."""
    log = (lines if lines is not None else []).append
    with Telemetry(workdir, first_step=first, log=log) as t:
        for step in range(first + every, last + 1, every):
            t.write(step, {"loss": step / 7, "kl/total": jnp.float32(step)})
            if step % 20 == 0:
                t.write(step, {"score": np.float64(0.5)})


def test_one_record_per_step_with_plain_numbers(tmp_path):
    run(tmp_path / "run", 0, 40)
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert [json.loads(line) for line in text.splitlines()] == [
        {"step": 10, "loss": 10 / 7, "kl/total": 10.0},
        {"step": 20, "loss": 20 / 7, "kl/total": 20.0, "score": 0.5},
        {"step": 30, "loss": 30 / 7, "kl/total": 30.0},
        {"step": 40, "loss": 40 / 7, "kl/total": 40.0, "score": 0.5},
    ]


def test_not_finite_is_null(tmp_path):
    with Telemetry(tmp_path, first_step=0, log=print) as t:
        t.write(1, {"a": float("nan"), "b": jnp.float32(np.inf), "c": np.int64(3), "d": 0.25})
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "a": null, "b": null, "c": 3, "d": 0.25}\n'
    )


def test_record_is_on_disk_before_the_step_changes(tmp_path):
    t = Telemetry(tmp_path, first_step=0, log=print)
    t.write(1, {"a": 1, "long": 123456789})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 1, "long": 123456789}]
    t.write(1, {"long": 1})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "a": 1, "long": 1}]
    with pytest.raises(ValueError, match="step 0"):
        t.write(0, {"a": 1})
    t.close()
    t.close()


@pytest.mark.parametrize("torn", [b"", b'{"step": 70, "lo', b"\x00\x00\x00"])
@pytest.mark.parametrize("resumed_from", [20, 40, 55])
def test_resumed_file_equals_the_uninterrupted_one(tmp_path, torn, resumed_from):
    run(tmp_path / "whole", 0, 100)
    run(tmp_path / "parts", 0, 60)
    path = tmp_path / "parts" / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    first = resumed_from // 10 * 10
    with Telemetry(tmp_path / "parts", first_step=resumed_from, log=print):
        assert [r["step"] for r in read_metrics(path)] == list(range(10, first + 1, 10))
    run(tmp_path / "parts", first, 100)
    assert path.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert [p.name for p in path.parent.glob("*.tmp")] == []


def test_evaluation_after_a_resume_joins_the_record(tmp_path):
    run(tmp_path, 0, 10)
    with Telemetry(tmp_path, first_step=10, log=print) as t:
        t.write(10, {"score": 0.7})
    (record,) = read_metrics(tmp_path / "metrics.jsonl")
    assert record == {"step": 10, "loss": 10 / 7, "kl/total": 10.0, "score": 0.7}


def test_start_anew_and_resume_without_a_file(tmp_path):
    run(tmp_path, 0, 50)
    run(tmp_path, 0, 10)
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [10]
    run(tmp_path / "new", 50, 60)
    assert [r["step"] for r in read_metrics(tmp_path / "new" / "metrics.jsonl")] == [60]


def test_read_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(path)


def events_of(workdir):
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(workdir.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_events_hold_scalars_and_images(tmp_path):
    with Telemetry(tmp_path, first_step=30, log=print) as t:
        images = {"grid/grey": np.zeros((4, 6, 1), np.uint8), "rgb": np.ones((5, 7, 3), np.uint8)}
        t.write(40, {"kl/total": 0.25, "bad": float("nan")}, images)
    found = {v.tag: (e.step, v) for e in events_of(tmp_path) for v in e.summary.value}
    assert set(found) == {"kl/total", "grid/grey", "rgb"}
    assert found["kl/total"][0] == 40 and found["kl/total"][1].simple_value == 0.25
    grey, rgb = found["grid/grey"][1].image, found["rgb"][1].image
    assert (grey.height, grey.width, rgb.height, rgb.width) == (4, 6, 5, 7)
    # A session start at step 31 makes TensorBoard hide an earlier launch's events from there on.
    assert [e.step for e in events_of(tmp_path) if e.session_log.status == 1] == [31]


def test_goes_on_without_tensorboardx(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    lines = []
    run(tmp_path, 0, 20, lines=lines)
    assert len(lines) == 1 and "tensorboardX" in lines[0]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_line_per_log_point_without_a_terminal(clock):
    lines, figures = [], ("loss", "score", "absent")
    with Progress(1000, 150_000, lines.append, figures) as t:
        t.at(1100)
        clock[0] += 40
        t.at(1200, {"other": 1.0, "loss": 0.693147})
        clock[0] += 2
        t.at(1300, {"loss": float("nan"), "score": 0.5})
        t.at(1300, {"score": 0.75})
    assert lines == [
        "step 1200/150000  5.0 steps/s  8h16m left  loss 0.6931",
        "step 1300/150000  50.0 steps/s  49m34s left  loss nan  score 0.5",
        "step 1300/150000  50.0 steps/s  49m34s left  score 0.75",
    ]


def test_bar_on_a_terminal(clock, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    lines, terminal = [], Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(500, 1000, lines.append) as t:
        clock[0] += 10
        t.at(600, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})
        t.at(650)
        t.log("a line of its own")
    shown = terminal.getvalue()
    assert lines == ["a line of its own"]
    assert "step 600/1000, 10.0 steps/s  40s left  a 1  b 2  c 3" in shown
    assert "step 650/1000" in shown and "d 4" not in shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (27_960, "7h46m"), (183_600, "2d03h")],
)
def test_duration(seconds, text):
    assert progress._duration(seconds) == text


@pytest.mark.parametrize(("rate", "text"), [(0.0123, "0.012"), (5.31, "5.3"), (12345.6, "12346")])
def test_speed(rate, text):
    assert progress._speed(rate) == text
