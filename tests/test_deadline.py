"""train.max_minutes: how long pieces are estimated to take, and when the time is up."""

import json
from types import SimpleNamespace

import pytest
import tiny

from ibgan_jax.training import deadline, timing
from ibgan_jax.training.course import Course
from ibgan_jax.training.deadline import Deadline
from ibgan_jax.training.timing import Timing
from ibgan_jax.training.workdir import Workdir

SEEDS = (0, 1)
LONG = 800
NAMES = [f"quickstart-ibgan-seed{seed}" for seed in SEEDS]


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(timing.time, "monotonic", lambda: now[0])
    return now


def test_no_limit_is_never_reached(clock):
    limit = Deadline(0.0, Timing())
    clock[0] += 1e9
    assert limit.left() == float("inf") and not limit.reached(1e9)


def test_what_is_left_and_what_is_kept(clock):
    limit = Deadline(2.0, Timing(started=900.0))
    assert limit.left() == 20
    limit.kept = 15
    assert limit.left() == 5 and limit.reached(5) and not limit.reached(4.9)


def test_estimates_are_the_slowest_with_a_margin(clock):
    limit = Deadline(10.0, Timing())
    with limit.timing.phase("saves", 2):
        clock[0] += 4
    with limit.timing.phase("saves"):
        clock[0] += 5
    assert limit.timing.measured("saves") == (5, 3)
    assert limit.estimate("saves", 3) == deadline.MARGIN * (5 + 2 * 3)
    assert limit.estimate("saves", 0) == 0
    for _ in range(timing.REMEMBERED):
        limit.timing.note("saves", 1.0)
    assert limit.estimate("saves") == deadline.MARGIN


def test_guesses_suit_the_limit():
    """Before anything is measured: small for a short limit, minutes for ten members in ten."""
    short, real = Deadline(0.1, Timing()), Deadline(9.0, Timing())
    assert short.estimate("report", 2) < 6
    assert 60 < real.estimate("report", 10) < 200
    assert real.estimate("report", 1) < real.estimate("report", 10) / 3
    # A report is what it takes besides the scores that were measured.
    before = real.estimate("report")
    real.timing.note("scores", 100.0)
    assert real.estimate("report") > before + 100


def test_what_came_before_is_learned(tmp_path, clock):
    home, lines = Workdir(tmp_path), []
    for launches in (1, 2):
        taken = Timing()
        with timing.accounting(taken, home, lines.append):
            assert taken.measured("scores") == (None if launches == 1 else (3, 3))
            with taken.phase("steps"):
                clock[0] += 10
            with taken.phase("scores"):
                clock[0] += 3
            clock[0] += 1
        recorded = json.loads(home.timing.read_text())
        assert recorded["launches"] == launches and recorded["wall_s"] == 14 * launches
        assert recorded["phases_s"]["steps"] == 10 * launches
        assert recorded["phases_s"]["other"] == launches
    line = "wall time 14 s: steps 10, compiling 0, scores 3, saves 0, pictures 0, report 0, other 1"
    assert lines == [line, line]
    # Compiling is another matter: the next launch may find it done.
    assert "compiling" not in recorded["pieces"] and "steps" not in recorded["pieces"]
    for damaged in ("{", "[]", '{"launches": 1}', '{"launches": "many", "wall_s": 1}'):
        home.timing.write_text(damaged)
        taken = Timing()
        taken.learn(home)
        assert taken.measured("scores") is None


def test_of_a_launch_that_trains_nothing_nothing_is_said(tmp_path):
    lines = []
    with timing.accounting(Timing(), Workdir(tmp_path), lines.append):
        pass
    assert lines == [] and not list(tmp_path.iterdir())


def test_time_beside_the_steps_is_shown_apart(clock):
    taken = Timing()
    taken._thread = None  # as seen from the thread beside it
    with taken.phase("scores"):
        clock[0] += 20
        with taken.waiting():
            clock[0] += 3
    assert "scores 3 (and 20 beside the steps)" in str(taken)


def test_a_planned_report_is_made_unless_it_would_be_far_too_late(clock):
    limit = Deadline(1.0, Timing())
    limit.timing.note("report", 10.0)
    for passed, allowed in ((50, True), (54, True), (56, False), (70, False)):
        clock[0] = 1000 + passed
        assert limit.allows_report() == allowed
    assert Deadline(0.0, Timing()).allows_report()


def on_course(steps, light=False, waiting=0):
    """Two members on their way to so many steps, ten in a dispatch, with all pieces measured."""
    taken = Timing()
    for piece, seconds in {
        "steps": 1,
        "scores": 3,
        "pictures": 1,
        "saves": 4,
        "report": 20,
    }.items():
        taken.note(piece, seconds / deadline.MARGIN)
    train = tiny.config(
        train_steps=steps,
        train_log_every=10,
        train_evaluate_every=30,
        train_checkpoint_every=30,
        train_light=light,
    ).train
    course = object.__new__(Course)
    course._deadline, course._train, course._dispatch = Deadline(10.0, taken), train, 10
    course._members = [SimpleNamespace(diverged=None) for _ in SEEDS]
    course._reported, course._records = 2, SimpleNamespace(copies=waiting)
    return course


@pytest.mark.parametrize(
    ("step", "light", "waiting", "needed"),
    [
        (10, False, 0, 1 + 2 * 4 + 2 * 20),  # a dispatch, the last save and the reports
        (20, False, 0, 1 + 2 * (3 + 1) + 2 * 2 * 4 + 2 * 20),  # the next one is scored
        (20, True, 0, 1 + 2 * 3 + 2 * 4 + 2 * 20),  # and neither drawn nor saved
        (30, False, 0, 1 + 2 * (3 + 1) + 2 * 2 * 4 + 2 * 20),  # this one is, before all else
        (10, False, 2, 1 + 2 * (3 + 1) + 2 * 2 * 4 + 2 * 20),  # two wait beside the steps
    ],
)
def test_whatever_is_still_to_come_is_part_of_the_estimate(clock, step, light, waiting, needed):
    course = on_course(1000, light, waiting)
    clock[0] = 1000 + 600 - needed - 0.1
    assert not course._too_late(step)
    clock[0] += 0.2
    assert course._too_late(step)


def test_the_last_steps_are_not_left_undone_for_a_margin(clock):
    """At step 90 of 100: a dispatch, and two members' scores and saves at both, and reports."""
    likely = (1 + 2 * 2 * (3 + 1) + 2 * 2 * 4 + 2 * 20) / deadline.MARGIN
    course = on_course(100)
    clock[0] = 1000 + 600 - likely - 0.1
    assert not course._too_late(90) and course._too_late(80)
    clock[0] += 0.2
    assert course._too_late(90)


# ------------------------------------------------------------------------------- real programs
