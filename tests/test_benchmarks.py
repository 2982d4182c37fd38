"""The benchmarks that people and scripts decide by: rows, verdicts, peaks."""

import itertools
import json
import sys
import types

import jax
import numpy as np
import pytest

from benchmarks import __main__ as everything
from benchmarks import memory, precision, step
from ibgan_jax import data
from ibgan_jax.errors import UserError


def test_only_the_rows_that_are_wanted_are_made(monkeypatch):
    made = []

    def row(name):
        def make():
            made.append(name)
            return step.Made(lambda state: state + 1, np.zeros(()), 2)

        return make

    monkeypatch.setattr(step, "rows", lambda *_: {name: row(name) for name in "abc"})
    result = step.measure(1, 1, 3, (), ["c", "a"])
    assert made == list(result) == ["a", "c"]
    assert all(x["median_ms"] >= x["min_ms"] >= 0 for x in result.values())
    with pytest.raises(UserError, match="no row 'd' here; there are: a, b, c"):
        step.measure(1, 1, 3, (), ["d"])


def test_off_the_cpu_no_program_is_made_twice(monkeypatch):
    here = set(step.rows(1, 2, (4,)))
    monkeypatch.setattr(step.jax, "default_backend", lambda: "gpu")
    there = set(step.rows(1, 2, (4,)))
    ours = {name for name in here if not name.startswith("pytorch")}
    assert ours == {"bare", "resident", "patches", "lax", "pixel shuffle", "population 4", "vmap 4"}
    assert {"filtered", "population 4", "resident float16"} <= there
    assert not {"patches", "vmap 4", "resident float32"} & there


def curve(offset):
    return dict.fromkeys(precision.TAGS, np.full(40, offset, np.float32))


@pytest.mark.parametrize(
    ("other", "agrees"), [(0.5, True), (1.0, True), (1.1, False), (np.nan, False)]
)
def test_a_precision_agrees_when_it_is_as_near_as_another_seed(
    monkeypatch, tmp_path, other, agrees
):
    made = {"float32": curve(0.0), precision.ANOTHER: curve(-1.0), "float16": curve(other)}
    monkeypatch.setattr(precision, "rows", lambda *_: made.items())
    file = tmp_path / "precision.json"
    monkeypatch.setattr(sys, "argv", ["precision", f"--json={file}", "--rows=float16"])
    precision.main()
    rows = json.loads(file.read_text())["rows"]
    assert rows["float16"]["agrees"] == agrees
    assert "agrees" not in rows["float32"] | rows[precision.ANOTHER]


def test_one_tag_further_than_another_seed_is_enough_to_disagree():
    seed = {tag: {"rms": 1.0} for tag in precision.TAGS}
    row = seed | {precision.TAGS[-1]: {"rms": 1.01}}
    assert precision.agrees(seed, seed)
    assert not precision.agrees(row, seed)


def test_an_unknown_row_is_refused_before_any_work(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["precision", "--rows=float8"])
    with pytest.raises(SystemExit) as ended:
        precision.main()
    assert ended.value.code == 2
    assert "no row 'float8'; there are: float32, another seed, tf32" in capsys.readouterr().err


def test_the_peak_is_the_devices_own(monkeypatch):
    def devices(platform, *figures):
        made = [
            types.SimpleNamespace(platform=platform, memory_stats=lambda x=x: x) for x in figures
        ]
        monkeypatch.setattr(jax, "local_devices", lambda: made)

    devices("gpu", {"peak_bytes_in_use": 3 * 2**20}, {"peak_bytes_in_use": 5 * 2**20})
    assert memory.peak_mib() == 5
    devices("gpu", None)
    with pytest.raises(UserError, match="does not say"):
        memory.peak_mib()
    devices("cpu", None)
    assert memory.peak_mib() > 50


def test_what_is_not_installed_is_left_out(small, monkeypatch, tmp_path, capsys):
    load = data.load

    def without_grain(name, source, *more):
        if source == "stream":
            raise UserError("dataset.source=stream needs grain")
        return load(name, source, *more)

    monkeypatch.setattr(data, "load", without_grain)
    monkeypatch.setattr(everything, "FEEDING", {"steps": 2, "at_once": 1, "batch": 4})
    monkeypatch.setattr(everything.sprites, "render_packed_all", lambda: None)
    names = [name for name, _, _ in itertools.islice(everything.once(tmp_path), 2)]
    assert names[1] == "feeding, resident"
    assert "feeding, stream: left out, dataset.source=stream needs grain" in capsys.readouterr().out
