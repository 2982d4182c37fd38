"""What the GPU benchmark measures, leaves out and calls the best; a rehearsal on the CPU."""

import itertools
import json

import pytest
import tiny

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import measure, plan
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.plan import Measured, Row

PATCHES = [
    Measured(Row("patches", precision, 10), ms, 20.0)
    for precision, ms in (("tf32", 0.7), ("float16", 0.4), ("bfloat16", 0.45), ("float32", 0.9))
]


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def session(seconds, clock, file=None):
    record = {"rows": [], "others": {}, "best": None}
    return command.Session(record, Budget(seconds, clock=clock), file)


def test_the_best_of_each_class_is_the_fastest():
    best = plan.best([*PATCHES, Measured(Row("lax", "bfloat16", 16, 100), 0.3, 7.0)])
    assert best["16-bit"] == {
        "convolution": "lax",
        "precision": "bfloat16",
        "members": 16,
        "steps_per_dispatch": 100,
        "ms_a_member": 0.3,
        "compile_s": 7.0,
    }
    assert best["tf32"]["ms_a_member"] == 0.7
    assert best["float32"]["precision"] == "float32"
    assert plan.best([]) == {"16-bit": None, "tf32": None, "float32": None}


@pytest.mark.parametrize(
    ("row", "ms", "skipped"),
    [
        (Row("filtered", "float32", 16), 1.36, True),  # 1.5 times patches at its own precision
        (Row("filtered", "float32", 16), 1.34, False),
        (Row("lax", "bfloat16", 1), 0.61, True),  # 1.5 times patches at float16, more exact
        (Row("lax", "bfloat16", 1), 0.59, False),
        (Row("filtered", "float32", 10, 100), 9.9, False),  # as many members: it decides
        (Row("lax", "float32", 10), None, False),
        (Row("lax", "float32", 1), None, False),  # nothing is known of it
    ],
)
def test_what_cannot_win_is_left_out(row, ms, skipped):
    own = [] if ms is None else [Measured(Row(row.convolution, row.precision, 10), ms, 5.0)]
    reason = plan.cannot_win(row, PATCHES + own)
    assert (reason or "").startswith("cannot win: ") == skipped


def test_a_faster_row_that_is_less_exact_rules_nothing_out():
    measured = [
        Measured(Row("patches", "float32", 10), 9.0, 5.0),
        Measured(Row("patches", "float16", 10), 0.1, 5.0),
    ]
    assert plan.cannot_win(Row("patches", "float32", 16), measured) is None


def test_other_dispatches_are_those_of_the_fastest_of_as_many_members():
    measured = [*PATCHES, Measured(Row("lax", "tf32", 1), 1.2, 9.0)]
    best, alone = Row("patches", "float16", 10), Row("lax", "tf32", 1)
    expected = [(row, k) for row in (best, alone) for k in (10, 100)]
    found = plan.other_dispatches(measured, (10, 50, 100))
    assert list(found) == [Row(r.convolution, r.precision, r.members, k) for r, k in expected]
    assert plan.other_dispatches([], (10,)) == ()


def test_no_row_starts_when_the_slowest_would_not_fit(tmp_path):
    clock, seconds = Clock(), iter((30.0, 10.0, 15.0))
    file = tmp_path / "gpu.json"
    one = session(85.0, clock, file)
    started = []

    def work(row):
        started.append(row)
        clock.now += next(seconds)
        return {"ms_a_member": 1.0 - 0.1 * len(started), "compile_s": 1.0}

    rows = [row for row in plan.ORDER if isinstance(row, Row)][:5]
    for row, count in zip(rows, itertools.count(1), strict=False):
        one.row(row, work)
        assert len(json.loads(file.read_text())["rows"]) == count  # each is kept at once
    assert started == list(rows[:3])  # 55 s are gone then, 30 would not fit
    record = json.loads(file.read_text())
    assert [row.get("skipped") for row in record["rows"]] == [None] * 3 + [command.LATE] * 2
    assert record["best"]["16-bit"]["precision"] == "bfloat16"


def test_work_of_a_kind_of_its_own_may_be_guessed():
    clock = Clock()
    budget = Budget(60.0, {"short": 5.0}, clock)
    with budget.spent_on("long"):
        clock.now += 50.0
    assert budget.fits("short")
    assert not budget.fits("unknown")
    with budget.spent_on("short"):
        clock.now += 6.0
    assert not budget.fits("short")


def test_a_row_that_fails_is_recorded_and_the_next_one_measured():
    one = session(60.0, Clock())

    def fail(row):
        raise MemoryError("out of\nmemory")

    one.row(plan.ORDER[0], fail)
    one.row(plan.ORDER[2], lambda row: {"ms_a_member": 0.5, "compile_s": 2.0})
    failed, measured = one.record["rows"]
    assert failed["error"] == "out of memory"
    assert measured["ms_a_member"] == 0.5
    assert one.record["best"]["16-bit"] is None


def test_a_cpu_is_refused_in_one_line(capsys):
    assert command.main([]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: benchmarks.gpu measures an accelerator; on a CPU there is --rehearse"
    ]


@pytest.mark.slow
def test_a_rehearsal_measures_and_writes_everything(small, tmp_path, monkeypatch, capsys):
    order = (Row("patches", "float16", 10), "graph tf32", plan.SCORE, Row("lax", "tf32", 1))
    monkeypatch.setattr(plan, "ORDER", order)
    monkeypatch.setattr(command, "REHEARSAL", command.REHEARSAL | {"other_k": (), "steps": 2})
    monkeypatch.setattr(measure, "STEPS", 2)
    monkeypatch.setattr(command.step, "BATCH", 8)
    monkeypatch.setattr(measure, "BATCH", 8)
    monkeypatch.setattr(measure, "random_records", lambda count: tiny.records())
    file = tmp_path / "gpu.json"
    assert command.main(["--rehearse", "--width=1", f"--json={file}", "--minutes=9"]) == 0
    record = json.loads(file.read_text())
    assert [(row["members"], row["convolution"]) for row in record["rows"]] == [
        (2, "patches"),
        (1, "lax"),
    ]
    for row in record["rows"]:
        assert row["ms_a_member"] > 0
        assert len(row["ms"]) == measure.REPEATS
        assert row["work_mib"] > 0
    (_, count, microseconds), *kernels = record["rows"][0]["kernels"]
    assert count >= sum(line[1] for line in kernels) > 0
    assert microseconds >= sum(line[2] for line in kernels) > 0
    assert "kernels" not in record["rows"][1]
    assert record["others"]["ceilings"]["copy_gb_s"] > 0
    assert record["others"]["FactorVAE score of 2"]["s_a_member"] > 0
    assert {name: bool(row) for name, row in record["best"].items()} == {
        "16-bit": True,
        "tf32": True,
        "float32": False,
    }
    table = capsys.readouterr().out
    assert "patches float16 P=2 K=2" in table
    assert "best at float32: not measured" in table
