"""Makes the tables of results in README and docs/ anew from results/, never by hand.

    python -m benchmarks.readme [--check]

A table stands between `<!-- results:NAME -->` and `<!-- end -->`, NAME one of TABLES. `--check`
changes nothing and fails, naming the table, where a page is not what results/ says.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import summary, trials
from benchmarks.gpu import plan
from benchmarks.tables import markdown, read
from configs import table1
from ibgan_jax.errors import UserError
from ibgan_jax.reports import table
from ibgan_jax.reports.figures import atomic
from ibgan_jax.training import comparison
from ibgan_jax.training.workdir import Workdir

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- results:(\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
START = re.compile(r"<!-- results:")
PUBLISHED = table1.get_config().published.to_dict()
#: What `benchmarks.step` calls its rows, and README; several in one line share it.
STEP_ROWS = {
    ("bare",): "the step, images lying ready",
    ("resident",): "the same, fed from the resident data set",
    ("population 4", "population 10", "population 32"): (
        "a population of four, of ten, of 32, fed so, a step of one member"
    ),
    ("vmap 10",): "the ten in one `vmap`, which is for accelerators",
    ("pytorch",): "PyTorch 2.13, channels_last, written for speed (`benchmarks/pytorch.py`)",
    ("pytorch bf16",): "the same in bfloat16 autocast",
    ("patches",): "ours without minimal filtering: one product a convolution",
    ("lax",): "XLA's own convolutions",
}
RUN_COLUMNS = {"best": "best", "median": "median", "last": "last", "factor_vae": "fresh votes"}


def quickstart(results: Path) -> str:
    """The quickstart's seeds."""
    return summary.markdown(read(results / "quickstart/summary.json")["seeds"])


def vaes(results: Path) -> str:
    """The two VAEs that trained for 40 minutes."""
    metrics = ("factor_vae", "mig", "dci:linear")
    heads = ["", "best", "last", "fresh votes", "MIG", "DCI, linear", "active dimensions"]
    lines = [[*heads, "IB-GAN's Table 1, after all steps"]]
    for model, name in (("vae", "VAE"), ("beta_tcvae", "beta-TCVAE")):
        scores = read(results / f"dsprites-{model}-40min/seed0/scores.json")
        numbers = [scores["training"][key] for key in ("best", "last")]
        numbers += [scores[metric]["value"] for metric in metrics]
        active = str(scores["active_dimensions"]["value"])
        paper = f"{PUBLISHED['dsprites'][model]:.2f}"
        lines.append([name, *(f"{x:.3f}" for x in numbers), active, paper])
    return markdown(lines)


def step(results: Path) -> str:
    """Milliseconds a training step, and ratios to the first row."""
    rows = read(results / "benchmarks/all-cpu2.json")["rows"]
    base = rows["bare"]["median_ms"]
    lines = [["", "ms a step", "ratio"]]
    for names, label in STEP_ROWS.items():
        medians = [rows[name]["median_ms"] for name in names]
        ratios = ", ".join(f"{x / base:.2f}" for x in medians)
        lines.append([label, ", ".join(f"{x:.0f}" for x in medians), ratios])
    return markdown(lines)


def gpu(results: Path) -> str:
    """What `benchmarks.gpu` measured of steps on accelerators, the fastest first on each."""
    heads = [
        "device",
        "convolution",
        "precision",
        "members in a program",
        "ms a step of one member",
    ]
    lines = [[*heads, "seeds of 150,000 steps in 500 s"]]
    for path in sorted(results.glob("benchmarks/gpu-*.json")):
        record = read(path)
        named = [(row["convolution"], row) for row in record["rows"]]
        named += [(f"({name})", row) for name, row in record["others"].items()]
        measured = [(name, row) for name, row in named if "ms_a_member" in row]
        for name, row in sorted(measured, key=lambda one: one[1]["ms_a_member"]):
            milliseconds = row["ms_a_member"]
            cells = [row.get("precision", "-"), str(row.get("members", 1)), f"{milliseconds:.3f}"]
            seeds = f"{5e5 / (plan.FULL_STEPS * milliseconds):.1f}"
            lines.append([record["machine"]["device"], name, *cells, seeds])
    return markdown(lines)


def runs(results: Path) -> str:
    """Every folder that holds unpacked runs, beside the paper; nothing where there is none."""
    heads = ["system", "data set", "seeds", "steps", *RUN_COLUMNS.values(), "paper", "device"]
    lines = [[*heads, "folder"]]
    for folder in sorted({path.parents[1] for path in results.glob("*/*/weights.npz")}):
        if not list(folder.glob("*/config.json")):
            continue
        scored = [run for run in comparison.find([folder]) if run.scores.exists()]
        lines += [[*line, f"`results/{folder.name}`"] for line in _of_folder(scored)]
    if len(lines) == 1:
        return ""
    return (
        "Trained in full and scored; a folder keeps the weights of one seed at least. Means over "
        "seeds with one standard deviation, and the paper's mean of the best:\n\n" + markdown(lines)
    )


def _of_folder(workdirs: Sequence[Workdir]) -> list[list[str]]:
    """A line for every group of runs that differ in their seed alone."""
    if not workdirs:
        return []
    records = {workdir.path: workdir.must_exist() for workdir in workdirs}
    entries = [table.Entry(w.path, records[w.path]["config"], w.read_scores()) for w in workdirs]
    groups = table.grouped(entries)
    lines = []
    for group, row in zip(groups, table.gather(entries, PUBLISHED), strict=True):
        low, high = row.steps
        steps = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        devices = {_device(records[entry.path]) for entry in group.entries}
        paper = "-" if row.published is None else f"{row.published:.2f}"
        cells = [_spread(row.values.get(column, [])) for column in RUN_COLUMNS]
        lines.append(
            [
                *(row.system, row.dataset, str(len(row.seeds)), steps),
                *(*cells, paper, ", ".join(sorted(devices))),
            ]
        )
    return lines


def _device(record: dict[str, Any]) -> str:
    device = record["device"]
    return device["kind"] if device["count"] == 1 else f"{device['count']} x {device['kind']}"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"**{np.mean(values):.2f}** +- {np.std(values, ddof=1):.2f}"


TABLES: dict[str, Callable[[Path], str]] = {
    "quickstart": quickstart,
    "vaes": vaes,
    "step": step,
    "gpu": gpu,
    "runs": runs,
    "recipes": trials.recipes,
    "settings": trials.settings,
    "trials": trials.one_by_one,
    "unlabelled": trials.unlabelled,
    "mixture": trials.mixture,
}


def renewed(text: str, results: Path, page: str = "README.md") -> tuple[str, list[str]]:
    """The text of `page` with its tables as `results` has them, and the names that changed.

    Raises:
      UserError: a table that is none of TABLES, one without an end, or a result that is missing.
    """
    if len(START.findall(text)) != len(BLOCK.findall(text)):
        raise UserError(f"a table of {page} has no `<!-- end -->`")
    changed = []

    def table_of(block: re.Match) -> str:
        start, name, old, end = block.groups()
        if name not in TABLES:
            raise UserError(f"{page}: no table {name!r}; there are: {', '.join(TABLES)}")
        made = TABLES[name](results)
        new = f"\n{made}\n" if made else ""
        if new != old:
            changed.append(name)
        return start + new + end

    return BLOCK.sub(table_of, text), changed


def main(argv: Sequence[str], root: Path = ROOT) -> int:
    """The exit status: 0 done, 1 the check fails, 2 the user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args(argv)
    status = 0
    for path in (root / "README.md", *sorted(root.glob("docs/*.md"))):
        page = path.relative_to(root).as_posix()
        try:
            text, changed = renewed(path.read_text(), root / "results", page)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        names = ", ".join(changed)
        if changed and options.check:
            remedy = "python -m benchmarks.readme makes it"
            print(f"{page} is not what results/ says: {names}; {remedy}")
            status = 1
        elif changed:
            with atomic(path) as temporary:
                temporary.write_text(text)
            print(f"{page}: new tables: {names}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
