"""How IB-GAN's step on dSprites trains fastest on this GPU, within minutes.

    python -m benchmarks.gpu [--minutes=3] [--json=FILE] [--width=16] [--dir=data] [--seconds=500]
        [--rehearse]

In one process: what the card copies and multiplies at most; a step of one member (batch 64, images
resident) at several train.convolution, train.precision, numbers of members P in one program and
train.steps_per_dispatch K, built as training builds them; PyTorch's step; the FactorVAE score of
ten members. The most decisive rows come first. A row is left out where what is known says that it
cannot win, or where less time is left than the slowest row of its kind took. The JSON file is
written after every row; its `best` names the fastest row at 16 bits, at TF32 and at float32. Of the
first row it also has the time of each kernel.

At the end one table: the last column says how many seeds of 150,000 steps fit into --seconds of
stepping. PyTorch's rows need memory that JAX would take at its start, so
XLA_PYTHON_CLIENT_PREALLOCATE=false is set unless the variable has a value already.

--rehearse runs all of it on a CPU at --width=2 or so: at most two members and few steps, in float32
where a CPU has no other product. Its figures mean nothing. Exit status: 0 done, 2 no accelerator.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import step
from benchmarks.gpu import measure, plan, torch_rows
from benchmarks.gpu.budget import Budget
from ibgan_jax import distributed
from ibgan_jax.errors import UserError, one_line

ROW_KEYS = ("convolution", "precision", "members", "steps_per_dispatch")
OTHER_K = (10, 100)
LATE = "no time left"
# PyTorch compiles nothing when it is eager: its rows need not fit what ours take.
GUESSES = {"pytorch": 10.0}
REHEARSAL = {
    "members": 2,
    "steps": 4,
    "other_k": (2, 6),
    "side": 64,
    "bytes": 2**20,
    "images": 4096,
}
FULL = {
    "members": 32,
    "steps": plan.K,
    "other_k": OTHER_K,
    "side": 8192,
    "bytes": 2**30,
    "images": measure.SPRITES,
}


class Session:
    """The record of one call: every entry is kept at once, and so is what is the best so far."""

    def __init__(self, record: dict[str, Any], budget: Budget, file: Path | None) -> None:
        self.record, self.measured = record, []
        self._budget, self._file = budget, file

    def row(self, row: plan.Row, work: Callable[[plan.Row], dict[str, Any]]) -> None:
        """Measures one of our own rows, unless it cannot win or comes too late."""
        skipped = plan.cannot_win(row, self.measured)
        figures = {"skipped": skipped} if skipped else self._done("row", lambda: work(row))
        if "ms_a_member" in figures:
            took = figures["ms_a_member"], figures["compile_s"]
            self.measured.append(plan.Measured(row, *took))
        described = {
            "convolution": row.convolution,
            "precision": row.precision,
            "members": row.members,
            "steps_per_dispatch": row.steps,
        }
        self.record["rows"].append(described | figures)
        self._keep(str(row), figures)

    def other(self, kind: str, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measures what is not one of our rows, unless it comes too late."""
        figures = self._done(kind, work)
        self.record["others"][name] = figures
        self._keep(name, figures)

    def _done(self, kind: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `work` returns; what stands in its way is a figure too, for the next row may do."""
        if not self._budget.fits(kind):
            return {"skipped": LATE}
        try:
            with self._budget.spent_on(kind):
                return work()
        except Exception as error:
            return {"error": one_line(error)}

    def _keep(self, name: str, figures: dict[str, Any]) -> None:
        self.record["best"] = plan.best(self.measured)
        self.record["used_s"] = self._budget.used
        self.record["peak_gib"] = measure.peak_gib()
        if self._file:
            temporary = self._file.with_name(f".{self._file.name}.tmp")
            temporary.write_text(json.dumps(self.record, indent=2) + "\n")
            os.replace(temporary, self._file)
        shown = {key: x for key, x in figures.items() if not isinstance(x, list)}
        print(f"{self._budget.used:6.1f} s  {name}: {shown}", file=sys.stderr, flush=True)


def run(session: Session, width: int, directory: Path, sizes: dict[str, Any]) -> None:
    """Goes through everything that is measured, the most decisive first."""
    session.other("ceilings", "ceilings", lambda: measure.ceilings(sizes["side"], sizes["bytes"]))
    base = measure.base_run(width, sizes["images"])
    images = np.asarray(base.dataset.images(np.arange(step.BATCH)[:, None]))
    members = min(plan.TEN, sizes["members"])

    def measured(one: plan.Row | str) -> None:
        if isinstance(one, plan.Row):
            session.row(one, lambda row: measure.train(base, row, profiled=one == order[0]))
        elif one == plan.SCORE:
            name = f"FactorVAE score of {members}"
            session.other("score", name, lambda: measure.score(base, members, directory))
        else:
            kind = "compiled" if torch_rows.ROWS[one].get("compiled") else "pytorch"
            session.other(kind, f"pytorch {one}", lambda: torch_rows.train(one, width, images))

    order = plan.ORDER
    if sizes is REHEARSAL:
        order = plan.fewer_members(order, sizes["members"], sizes["steps"])
    for one in order:
        measured(one)
    for one in plan.other_dispatches(session.measured, sizes["other_k"]):
        measured(one)
    for one in torch_rows.ROWS:
        if one not in order:
            measured(one)


def table(record: dict[str, Any], seconds: float) -> str:
    """All figures of a record; `seconds` of stepping are what the last column is about."""
    lines = ["  ".join(f"{key} {value}" for key, value in record["machine"].items())]
    seeds = f"seeds in {seconds:g} s"
    lines.append(f"{'row':34}{'ms a member':>12}{'first s':>9}{'work MiB':>10}{seeds:>18}")
    rows = [(str(plan.Row(*(row[key] for key in ROW_KEYS))), row) for row in record["rows"]] + list(
        record["others"].items()
    )
    for name, row in rows:
        if "ms_a_member" in row:
            many = 1e3 * seconds / (plan.FULL_STEPS * row["ms_a_member"])
            work = f"{row['work_mib']:10,.0f}" if "work_mib" in row else f"{'':10}"
            numbers = f"{row['ms_a_member']:12.3f}{row['compile_s']:9.1f}{work}{many:18.1f}"
        else:
            shown = {key: x for key, x in row.items() if key not in ROW_KEYS}
            numbers = "  " + ", ".join(
                x if isinstance(x, str) else f"{key} {x:.4g}" for key, x in shown.items()
            )
        lines.append(f"{name:34}{numbers}")
    peak = record["peak_gib"]
    lines.append(f"peak memory of JAX: {'unknown' if peak is None else f'{peak:.2f} GiB'}")
    for name, row in record["best"].items():
        lines.append(f"best at {name}: {row or 'not measured'}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="no row starts too late for it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--width", type=int, help="g = d of the networks; 16, rehearsed 2")
    parser.add_argument("--dir", type=Path, default=Path("data"), help="where dSprites lies")
    parser.add_argument("--seconds", type=float, default=500.0, help="for the last column")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with tiny settings")
    options = parser.parse_args(argv)
    budget = Budget(60 * options.minutes, GUESSES)
    try:
        device = distributed.devices()[0]
        if device.platform == "cpu" and not options.rehearse:
            raise UserError("benchmarks.gpu measures an accelerator; on a CPU there is --rehearse")
        width = options.width or (2 if options.rehearse else 16)
        record: dict[str, Any] = {
            "machine": step.machine() | {"width": width, "rehearsal": options.rehearse},
            "minutes": options.minutes,
            "rows": [],
            "others": {},
            "best": plan.best([]),
        }
        session = Session(record, budget, options.json)
        exact = distributed.PRECISIONS[distributed.EXACT]
        with measure.on_one_device(options.rehearse), jax.default_matmul_precision(exact):
            run(session, width, options.dir, REHEARSAL if options.rehearse else FULL)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(record, options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
