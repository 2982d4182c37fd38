"""Tables of many runs: means over seeds, the paper's values, and what no column may mix."""

import csv
import json

import numpy as np
import pytest

from ibgan_jax.errors import UserError
from ibgan_jax.reports import table


def entry(system="vae", seed=0, best=0.5, mig=0.1, step=100, name="dsprites", beta=1.0, **protocol):
    how = {"protocol": "id_gan", "settings": {"votes": 800}} | protocol
    scores = {
        "factor_vae": {"value": best - 0.1, **how},
        "mig": {"value": mig, "protocol": "disentanglement_lib", "settings": {"bins": 20}},
        "kl": {"value": [1.0, 0.0], "protocol": "mean of draws", "draws": 10},
        "training": {"best": best, "median": best, "last": best, "best_step": 5},
        "run": {"model": system, "seed": seed, "checkpoint_step": step},
    }
    config = {"name": name, "model": system, "seed": seed, "dataset": {"name": "dsprites"}}
    config["hparams"] = {"beta": beta}
    return table.Entry(f"{name}-{system}-{seed}", config, scores)


def test_means_and_deviations_over_seeds():
    entries = [entry(seed=s, best=b) for s, b in enumerate((0.2, 0.4, 0.6))]
    entries.append(entry("ibgan", 0, best=0.8))
    vae, ibgan = table.gather(entries)
    assert (vae.system, vae.seeds, ibgan.seeds) == ("vae", (0, 1, 2), (0,))
    assert vae.mean("best") == pytest.approx(0.4)
    assert vae.deviation("best") == pytest.approx(0.2)
    assert ibgan.deviation("best") is None
    assert vae.mean("factor_vae") == pytest.approx(0.3)
    assert "kl" not in vae.values


def test_the_papers_values_stand_beside_ours():
    published = {"dsprites": {"vae": 0.61}}
    rows = table.gather([entry(best=0.5, step=300), entry("gan", best=0.3)], published)
    lines = table.markdown(rows).splitlines()
    heads = [cell.strip() for cell in lines[0].strip("|").split("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    vae, gan = (dict(zip(heads, row, strict=True)) for row in cells)
    assert (vae["best"], vae["paper"], vae["difference"]) == ("0.500", "0.61", "-0.11")
    assert (vae["seeds"], vae["steps"], vae["mig"]) == ("1", "300", "0.100")
    assert (gan["paper"], gan["difference"]) == ("-", "-")


def test_files_hold_every_number(tmp_path):
    rows = table.gather([entry(seed=s, best=0.1 * s, step=100 + s) for s in (1, 2)])
    table.write(rows, tmp_path)
    (record,) = json.loads((tmp_path / "table.json").read_text())
    assert record["values"]["best"] == [0.1, 0.2]
    assert record["steps"] == [101, 102]
    (line,) = csv.DictReader((tmp_path / "table.csv").open())
    assert float(line["best mean"]) == pytest.approx(0.15)
    assert float(line["best deviation"]) == pytest.approx(np.std([0.1, 0.2], ddof=1))
    assert (tmp_path / "table.md").read_text() == table.markdown(rows)
    assert "101 to 102" in table.markdown(rows)


@pytest.mark.parametrize(
    "other",
    [{"protocol": "infogan_cr"}, {"settings": {"votes": 500}}],
)
def test_scores_of_different_protocols_are_refused(other):
    with pytest.raises(UserError, match=r"factor_vae has protocol id_gan in .*-0 and"):
        table.gather([entry(seed=0), entry(seed=1, **other)])


def test_one_seed_twice_and_nothing_at_all_are_refused():
    with pytest.raises(UserError, match="both dsprites, vae, with seed 0"):
        table.gather([entry(), entry(best=0.7)])
    with pytest.raises(UserError, match="no runs"):
        table.gather([])


def test_a_metric_that_some_runs_lack():
    lacking = entry("gan")
    del lacking.scores["mig"]
    text = table.markdown(table.gather([entry(), lacking]))
    assert text.splitlines()[-1].endswith("| - |")


def test_runs_of_other_settings_or_experiments_are_other_rows():
    entries = [entry(seed=0), entry(seed=1, beta=4.0), entry(seed=2, name="quickstart")]
    rows = table.gather(entries, {"dsprites": {"vae": 0.61}})
    assert [row.system for row in rows] == [
        "vae (hparams.beta=1.0)",
        "vae (hparams.beta=4.0)",
        "vae",
    ]
    assert [row.experiment for row in rows] == ["dsprites", "dsprites", "quickstart"]
    assert [row.seeds for row in rows] == [(0,), (1,), (2,)]
    assert [row.published for row in rows] == [0.61] * 3
