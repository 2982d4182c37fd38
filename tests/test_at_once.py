"""population.at_once: how many members train at a time, and which wait for the next start."""

import jax
import pytest
import tiny

from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.training import course, loop, pace, reporting
from ibgan_jax.training.deadline import TimeIsUpError
from ibgan_jax.training.population import Programs
from ibgan_jax.training.run import build
from ibgan_jax.training.workdir import Workdir

NAMES = [f"quickstart-ibgan-seed{seed}" for seed in range(3)]


@pytest.mark.parametrize(
    ("left", "count"),
    [(0, 1), (110, 1), (214, 1), (215, 2), (319, 2), (320, 3), (1e9, 3)],
)
def test_finishing_takes_the_floor_and_never_none(left, count):
    """Ten seconds of steps a member, five for the report of each and five besides."""
    assert pace.finishing([1000] * 3, lambda n: 0.1, left, lambda n: 5 + 5 * n) == count


def test_members_that_have_begun_count_with_what_is_left_of_them():
    assert pace.finishing([0, 100, 1000], lambda n: 0.1, 15, lambda n: n) == 2


def test_fewer_members_may_take_longer_each():
    """Two at 0.2 s a step need 400 s; three at 0.1 s need 300."""
    paces = {1: 0.4, 2: 0.2, 3: 0.1}
    assert pace.finishing([1000] * 3, paces.get, 350, lambda n: 0) == 3
    assert pace.finishing([1000] * 3, paces.get, 299, lambda n: 0) == 1


def test_the_choice_is_said():
    said = pace.told([150_000] * 10, 0.0011, 9.0, 3)
    assert said == (
        "10 members: 11.0 ms a step, 28 min for 150,000 steps; 3 of them finish in 9 min: "
        "3 train now, 7 at the next start"
    )
    said = pace.told([100] * 2, 0.001, 9.0, 1)
    assert said.endswith("1 of them finishes in 9 min: 1 trains now, 1 at the next start")
    assert pace.told([100] * 2, 0.001, 9.0, 2).endswith("all of them finish in 9 min: 2 train now")


@pytest.fixture(autouse=True)
def one_device(small, monkeypatch):
    monkeypatch.setattr(distributed, "devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(reporting, "finish", lambda *args: None)


def population(**changed):
    made = tiny.config(**{"train_steps": 12, **changed})
    made.population.seeds = (0, 1, 2)
    return made


def train(home, **changed):
    """What is logged, and the error that it ends with."""
    lines = []
    runs = [(c, Workdir(home / name)) for name, c in configs.members(population(**changed))]
    left = [run for run in runs if not (run[1].checkpoints / "12").exists()]
    try:
        loop.train_together(left, lines.append)
    except TimeIsUpError as error:
        return lines, str(error)
    return lines, None


@pytest.fixture
def groups(monkeypatch):
    """How many members each course has."""
    sizes, run = [], course.Course.run

    def noted(self):
        sizes.append(len(self._members))
        run(self)

    monkeypatch.setattr(course.Course, "run", noted)
    return sizes


def test_at_most_so_many_at_a_time(tmp_path, groups):
    lines, error = train(tmp_path, population_at_once=2)
    assert error is None and groups == [2, 1]
    assert lines[0].startswith("2 members of ")


def test_memory_is_a_limit_too(tmp_path, groups, monkeypatch):
    monkeypatch.setattr(Programs, "fitting", lambda *_: 1)
    assert train(tmp_path, population_at_once=2)[1] is None
    assert groups == [1, 1, 1]


def test_those_that_finish_train_and_the_others_wait(tmp_path, groups, monkeypatch):
    changed = {"population_at_once": -1, "train_max_minutes": 30.0}
    monkeypatch.setattr(pace, "seconds_a_step", lambda *_: 60.0)  # 12 minutes a member
    lines, error = train(tmp_path, **changed)
    assert groups == [2]
    assert any("2 of them finish in 30 min: 2 train now, 1 at the next start" in x for x in lines)
    assert error == (
        "time is up with 2 of 3 members at step 12 (train.max_minutes=30); the same command goes on"
    )
    for name, there in zip(NAMES, (True, True, False), strict=True):
        assert (tmp_path / name / "checkpoints/12").exists() == there
    lines, error = train(tmp_path, **changed)
    assert error is None and groups == [2, 1]
    assert (tmp_path / NAMES[2] / "checkpoints/12").exists()


def test_the_pace_is_measured_on_states_that_are_thrown_away(tmp_path, groups):
    run = build(tiny.config(), log=lambda line: None)
    assert 0 < pace.seconds_a_step(Programs(run), run, 3) < 60
    lines, error = train(tmp_path, population_at_once=-1, train_max_minutes=600.0)
    assert error is None and groups == [3]
    assert any("all of them finish in 600 min: 3 train now" in line for line in lines)
