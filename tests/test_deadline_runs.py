"""Runs under train.max_minutes: everything is there, and the next start goes on exactly."""

import contextlib
import json
import random
import re
import time

import jax
import pytest
import tiny

import launch
from ibgan_jax import config as configs
from ibgan_jax import distributed
from ibgan_jax.training import loop, reporting, study, timing
from ibgan_jax.training.course import Course
from ibgan_jax.training.deadline import Deadline, TimeIsUpError
from ibgan_jax.training.workdir import Workdir

SEEDS = (0, 1)
LONG = 800
NAMES = [f"quickstart-ibgan-seed{seed}" for seed in SEEDS]


@pytest.fixture
def one_device(small, monkeypatch):
    monkeypatch.setattr(distributed, "devices", lambda: jax.devices()[:1])


# ---------------------------------------------------------------------------------- estimates


@contextlib.contextmanager
def up_at(*steps):
    """Inside, the time is up at each of these steps, once."""
    left = list(steps)

    def too_late(self, step):
        return bool(left) and step >= left[0] and bool(left.pop(0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Course, "_too_late", too_late)
        yield


def check_there(path, step, drawn=True):
    """State, scores and, unless the run is light, report of the step at which the time was up."""
    scores = tiny.scores(path)
    assert scores["run"]["checkpoint_step"] == step
    assert tiny.state(path, step)
    assert (path / "report.html").exists() == drawn
    assert not drawn or "</html>" in (path / "report.html").read_text()
    assert all(record["step"] <= step for record in tiny.metrics(path))
    assert scores["training"] == {} or scores["training"]["last"] is not None


def test_a_run_whose_time_is_up_goes_on_exactly(finished, tmp_path, small, capsys, monkeypatch):
    monkeypatch.setattr(launch, "STARTED", time.monotonic())
    command = tiny.command(tmp_path, train_max_minutes=50.0)
    with up_at(6, 20):
        for step in (6, 20):
            assert launch.main(["launch.py", *command]) == 3
            out, err = capsys.readouterr()
            assert err == (
                f"time is up at step {step} of 24 (train.max_minutes=50); "
                "the same command goes on\n"
            )
            assert out.splitlines()[-2] == f"report: {tmp_path}/report.html"
            assert out.splitlines()[-1].startswith("wall time ")
            check_there(tmp_path, step)
        assert launch.main(["launch.py", *command]) == 0
    assert tiny.differing(tiny.state(finished), tiny.state(tmp_path)) == []
    assert tiny.metrics(tmp_path) == tiny.metrics(finished)
    assert tiny.scores(tmp_path) == tiny.scores(finished)
    assert json.loads((tmp_path / "timing.json").read_text())["launches"] == 3


def test_a_light_run_leaves_the_same_with_fewer_files(finished, tmp_path, small):
    with up_at(14), pytest.raises(TimeIsUpError):
        tiny.train(tmp_path, train_light=True, train_max_minutes=50.0)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["14"]
    check_there(tmp_path, 14, drawn=False)
    tiny.train(tmp_path, train_light=True)
    assert tiny.differing(tiny.state(finished), tiny.state(tmp_path)) == []
    assert tiny.metrics(tmp_path) == tiny.metrics(finished)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"14", "24"}
    assert not (tmp_path / "figures").exists()
    assert not list(tmp_path.glob("events*"))


def population(**changed):
    made = tiny.config(**changed)
    made.population.seeds = SEEDS
    return made


def train(home, config, started=None):
    """Trains a study of that population; what it logs, and the error it ends with."""
    lines = []
    try:
        study.train(config, tiny.ROOT / "configs", Workdir(home), lines.append, started)
    except TimeIsUpError as error:
        return lines, str(error)
    return lines, None


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiled):
    """The folder of two members that trained together without a break."""
    home = tmp_path_factory.mktemp("whole")
    with tiny.quick(compiled), pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "devices", lambda: jax.devices()[:1])
        assert train(home, population())[1] is None
    return home


def assert_same(home, other):
    for name in NAMES:
        assert tiny.differing(tiny.state(home / name), tiny.state(other / name)) == [], name
        assert tiny.metrics(home / name) == tiny.metrics(other / name), name
        assert tiny.scores(home / name) == tiny.scores(other / name), name


def test_a_population_whose_time_is_up_goes_on_exactly(whole, tmp_path, one_device):
    config = population(train_max_minutes=50.0)
    with up_at(10):
        lines, error = train(tmp_path, config)
        assert error.startswith("time is up at step 10 of 24 (train.max_minutes=50)")
        for name in NAMES:
            check_there(tmp_path / name, 10)
        assert f"report: {tmp_path}/report.html" in lines
        lines, error = train(tmp_path, config)
    assert error is None and "2 of 2 runs to train" in lines[0]
    assert_same(whole, tmp_path)


def test_a_study_starts_no_population_that_has_no_time(whole, tmp_path, one_device, monkeypatch):
    """Each member is a population of its own; the first one takes all the time but ten seconds."""
    halves = [population(train_max_minutes=50.0) for _ in SEEDS]
    for half, seed in zip(halves, SEEDS, strict=True):
        half.population.seeds = (seed,)
    monkeypatch.setattr(study, "populations", lambda *_: halves)
    finish = reporting.finish

    def slow(*given):
        finish(*given)
        left = 50 * 60 - 10
        monkeypatch.setattr(Deadline, "left", lambda self: 3000 - left)

    monkeypatch.setattr(timing.Timing, "measured", lambda self, piece: (4.5, 4.5))
    monkeypatch.setattr(reporting, "finish", slow)
    _, error = train(tmp_path, halves[0])
    assert error.startswith("time is up before population 2 of 2")
    assert tiny.scores(tmp_path / NAMES[0])["run"]["checkpoint_step"] == 24
    assert not (tmp_path / NAMES[1]).exists()
    assert "quickstart" in (tmp_path / "table.md").read_text()
    monkeypatch.undo()
    monkeypatch.setattr(distributed, "devices", lambda: jax.devices()[:1])
    monkeypatch.setattr(study, "populations", lambda *_: halves)
    lines, error = train(tmp_path, halves[0])
    assert error is None and any("0 of 1 runs to train" in line for line in lines)
    assert_same(whole, tmp_path)


def test_a_limit_too_short_for_the_first_step_is_refused(tmp_path, small, monkeypatch, capsys):
    """Status 2: with 3 a job would requeue itself for ever."""
    monkeypatch.setattr(launch, "STARTED", time.monotonic() - 60)
    assert launch.main(["launch.py", *tiny.command(tmp_path, train_max_minutes=0.5)]) == 2
    line = (
        r"time is up at step 0 of 24: train\.max_minutes=0\.5 is too short, for it took (\d+) s to "
    )
    (seconds,) = re.match(line, capsys.readouterr().err).groups()
    assert 60 <= int(seconds) < 120
    assert not (tmp_path / "scores.json").exists()


def test_a_real_limit(tmp_path, small):
    """Of three seconds more than the small run takes, for one that would take hours."""
    began = time.monotonic()
    tiny.train(tmp_path / "first")
    limit = time.monotonic() - began + 3
    began, path = time.monotonic(), tmp_path / "run"
    with pytest.raises(TimeIsUpError, match="of 1000000"):
        tiny.train(path, train_steps=1_000_000, train_max_minutes=limit / 60)
    assert time.monotonic() - began < limit + 5
    check_there(path, max(int(p.name) for p in (path / "checkpoints").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "population", "study"])
def test_random_limits(kind, tmp_path, one_device, monkeypatch):
    """Seven a kind: never five seconds late, all is there, and the end is bit for bit the same."""
    many = {"train_steps": LONG, "train_evaluate_every": LONG // 4, "train_checkpoint_every": 100}
    many |= {"train_log_every": 50, "train_steps_per_dispatch": 10}

    def once(home, limit):
        """Trains for one limit, in minutes; the error it ends with, and seconds it was late."""
        began = time.monotonic()
        changed = many | {"train_max_minutes": limit}
        if kind == "run":
            try:
                tiny.train(home / NAMES[0], **changed)
                error = None
            except TimeIsUpError as raised:
                error = str(raised)
        else:
            made = [population(**changed)]
            if kind == "study":
                made = [population(**changed) for _ in SEEDS]
                for half, seed in zip(made, SEEDS, strict=True):
                    half.population.seeds = (seed,)
            monkeypatch.setattr(study, "populations", lambda *_: made)
            _, error = train(home, made[0], began)
        return error, time.monotonic() - began - 60 * limit

    error, taken = once(tmp_path / "whole", 0.0)
    assert error is None
    names = NAMES[:1] if kind == "run" else NAMES
    for number in range(7):
        home, error, starts = tmp_path / str(number), "", 0
        while error is not None:
            starts += 1
            assert starts < 30
            limit = random.uniform(0.3, 0.9) * taken
            error, late = once(home, limit / 60)
            print(f"{kind} {number}: limit {limit:.1f} s, late {late:.1f} s, {error}")
            assert late < 5
            for name in names:
                if (home / name / "checkpoints").exists():
                    steps = [int(p.name) for p in (home / name / "checkpoints").iterdir()]
                    check_there(home / name, max(steps))
        for name in names:
            states = [tiny.state(at / name, LONG) for at in (home, tmp_path / "whole")]
            assert tiny.differing(*states) == []
            assert tiny.metrics(home / name) == tiny.metrics(tmp_path / "whole" / name)
            assert tiny.scores(home / name) == tiny.scores(tmp_path / "whole" / name)


def test_the_limit_may_change_from_start_to_start():
    recorded = configs.flatten(tiny.config().to_dict())
    for key in ("train.max_minutes", "train.light", "population.at_once"):
        assert key in recorded and key in configs.FREE_KEYS
    changed = tiny.config(train_max_minutes=3.0, train_light=True, population_at_once=2)
    configs.check_same(tiny.config().to_dict(), changed, "there")
    old = tiny.config().to_dict()
    del old["train"]["max_minutes"], old["train"]["light"], old["population"]["at_once"]
    assert configs.completed(old) == tiny.config().to_dict()
    assert loop.TimeIsUpError is TimeIsUpError
