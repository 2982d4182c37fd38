"""README's tables of results are what results/ says."""

import json
import shutil

import pytest
import tiny

from benchmarks import readme, summary
from ibgan_jax.training.workdir import Workdir

RESULTS = tiny.ROOT / "results"


def test_readme_is_what_results_say(capsys):
    assert readme.main(["--check"]) == 0, capsys.readouterr().out
    pages = [tiny.ROOT / "README.md", *tiny.ROOT.glob("docs/*.md")]
    text = "".join(page.read_text() for page in pages)
    assert all(text.count(f"<!-- results:{name} -->") == 1 for name in readme.TABLES)


def test_summaries_are_those_of_the_runs_beside_them():
    for folder in ("quickstart", "dsprites-vae-40min", "dsprites-beta_tcvae-40min"):
        rows = json.loads((RESULTS / folder / "summary.json").read_text())["seeds"]
        for seed, row in rows.items():
            name = f"seed{seed}".replace(", ", "-").replace(" ", "")
            assert summary.row(RESULTS / folder / name) == pytest.approx(row), name


@pytest.fixture
def root(tmp_path):
    """A checkout of README, docs and results alone."""
    shutil.copy(tiny.ROOT / "README.md", tmp_path)
    shutil.copytree(tiny.ROOT / "docs", tmp_path / "docs")
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.png"))
    return tmp_path


def test_a_result_that_changes_is_noticed_and_written(root, capsys):
    path = root / "results/benchmarks/all-cpu2.json"
    path.write_text(path.read_text().replace("723.4", "823.4"))
    before = (root / "README.md").read_text()
    assert readme.main(["--check"], root) == 1
    out = capsys.readouterr().out
    assert "not what results/ says: step;" in out and out.count("\n") == 1
    assert (root / "README.md").read_text() == before
    assert readme.main([], root) == 0
    after = (root / "README.md").read_text()
    assert "| XLA's own convolutions | 823 | 4.67 |" in after
    assert len(set(before.splitlines()) ^ set(after.splitlines())) == 2
    assert readme.main(["--check"], root) == 0


def test_a_number_typed_by_hand_is_noticed(root):
    text = (root / "README.md").read_text()
    (root / "README.md").write_text(text.replace("| 0.766 |", "| 0.866 |"))
    assert readme.main(["--check"], root) == 1


def test_mistakes_are_one_line(root, capsys):
    def refused(text):
        (root / "README.md").write_text(text)
        assert readme.main(["--check"], root) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1
        return error

    assert "no table 'nothing'; there are: quickstart" in refused(
        "<!-- results:nothing -->\n<!-- end -->\n"
    )
    assert "has no `<!-- end -->`" in refused("<!-- results:step -->\n")
    (root / "results/benchmarks/all-cpu2.json").unlink()
    assert "all-cpu2.json cannot be read" in refused("<!-- results:step -->\n<!-- end -->\n")


def put(folder, seed, best, hparams=None, **scores):
    """A run as it comes out of an archive, trained on an H100."""
    run = Workdir(folder / f"seed{seed}")
    run.create()
    made = tiny.config(seed=seed, **(hparams or {}))
    record = {"config": made.to_dict(), "device": {"kind": "NVIDIA H100", "count": 1}}
    run.write_json(run.config, record | {"commit": "0" * 40, "versions": {}})
    run.weights.touch()
    run.write_scores(
        {
            **{name: {"value": x, "protocol": "id_gan"} for name, x in scores.items()},
            "training": {"best_step": 24, "best": best, "median": best - 0.1, "last": best - 0.2},
            "run": {"model": "ibgan", "seed": seed, "checkpoint_step": 24},
        }
    )
    return run


def test_a_folder_of_unpacked_runs_gets_a_row(root):
    folder = root / "results/dsprites-h100"
    put(folder, 0, 0.80, factor_vae=0.7)
    put(folder, 1, 0.84, factor_vae=0.72)
    (put(folder, 2, 0.9).scores).unlink()  # the time was up before it was scored
    assert readme.main(["--check"], root) == 1
    assert readme.main([], root) == 0
    row = next(x for x in (root / "README.md").read_text().splitlines() if "dsprites-h100" in x)
    assert row == (
        "| ibgan | dsprites | 2 | 24 | **0.82** +- 0.03 | **0.72** +- 0.03 | **0.62** +- 0.03 | "
        "**0.71** +- 0.01 | 0.80 | NVIDIA H100 | `results/dsprites-h100` |"
    )
    put(folder, 3, 0.5, {"hparams_beta": 0.5}, factor_vae=0.4)
    assert readme.main([], root) == 0
    rows = [x for x in (root / "README.md").read_text().splitlines() if "dsprites-h100" in x]
    assert len(rows) == 2
    assert "ibgan (hparams.beta=0.5) | dsprites | 1 | 24 | 0.50 | 0.40 | 0.30 | 0.40 |" in rows[1]


def test_a_summary_has_the_best_checkpoint_again_and_the_minutes(tmp_path):
    run = put(tmp_path, 0, 0.5, factor_vae=0.4, active_dimensions=4)
    run.write_json(run.timing, {"wall_s": 90.0})
    before = summary.row(run.path)
    assert before["minutes"] == 1.5
    assert before["best, fresh votes"] == 0.4  # the newest checkpoint is the best one
    run.best.scores.parent.mkdir()
    run.best.write_scores({**run.read_scores(), "factor_vae": {"value": 0.45}})
    run.best.figures.mkdir()
    (run.best.figures / "votes.png").write_bytes(b"drawn")
    made = summary.row(run.path)
    assert made == {**before, "best, fresh votes": 0.45}
    summary.copy(run.path, tmp_path / "out", figures=True)
    assert summary.row(tmp_path / "out") == made
    assert (tmp_path / "out/best/votes.png").read_bytes() == b"drawn"
    table = summary.markdown({"0": made, "1": {k: x for k, x in made.items() if k != "minutes"}})
    assert "best, fresh votes" in table and "minutes" not in table
