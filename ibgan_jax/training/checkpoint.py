"""Checkpoints of a run: saved in the background, verified when read. Only this file knows Orbax.

`checkpoints/STEP/` is one Orbax checkpoint with two items, `state` (the arrays) and `record` (JSON:
score, layout of the state, the caller's extra), and a manifest over its files that `sha256sum -c
SHA256SUMS` reads. Orbax restores a flipped bit without a word, so nothing is read before the
manifest agrees. It is written last: a step directory without one is an interrupted save.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ibgan_jax.errors import UserError, one_line
from ibgan_jax.training import manifest

PyTree = Any

_RECORD = "record/metadata"  # where Orbax's JsonSave puts the item named "record"
_TEMPORARY = ".orbax-checkpoint-tmp"  # Orbax ignores and later removes what ends like this
_CENTURY = 100 * 365 * 86400  # seconds

# Orbax reports its progress, and errors that it raises as well, through absl's logger.
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
# It writes each array in a task. What fails the first is raised; Python would print the others,
# and that those which then end find nobody who waits for them.
warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
logging.getLogger("asyncio").addFilter(lambda record: "never retrieved" not in record.getMessage())
_print_unraisable = sys.unraisablehook


def _unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        _print_unraisable(unraisable)


sys.unraisablehook = _unraisable


class Checkpoints:
    """The checkpoints in one directory: the newest two and the one with the best (highest) score.

    With several processes, all call `save` and `restore` at the same points and share the disk.
    """

    def __init__(self, directory: Path) -> None:
        """Makes nothing on disk: `directory` (workdir/checkpoints) is created by the first save."""
        self._directory = Path(directory).absolute()
        self._manager: ocp.CheckpointManager | None = None
        self._sealer: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self, step: int, state: PyTree, *, score: float | None, extra: dict | None = None
    ) -> None:
        """Saves `state` as `step`, in the background once its arrays are copied off the device.

        `state` may be donated as soon as this returns. A step that is there already is left as it
        is. A `score` that is None, NaN or infinite counts as none. `extra` is JSON.

        Raises:
          UserError: `step` precedes the newest checkpoint.
          Exception: whatever made the save before this one fail.
        """
        self.wait()
        steps = _agreed(self.steps())
        if step in steps:
            return
        if steps and step < steps[-1]:
            raise UserError(f"step {step} precedes {self._path(steps[-1])}: use another workdir")
        manager = self._open()
        score = None if score is None or not math.isfinite(score) else float(score)
        record = {"score": score, "layout": _layout(state), "extra": extra or {}}
        items = {"state": ocp.args.StandardSave(state), "record": ocp.args.JsonSave(record)}
        manager.save(step, args=ocp.args.Composite(**items), force=True)
        self._sealer = threading.Thread(target=self._seal, args=(manager, step), name="seal")
        self._sealer.start()

    def steps(self) -> list[int]:
        """Returns the complete checkpoints (those with a manifest), ascending."""
        return sorted(
            s for s in self._step_directories() if (self._path(s) / manifest.NAME).is_file()
        )

    def newest(self) -> int:
        """Returns the newest complete checkpoint, 0 without one; all processes call it together."""
        return [0, *_agreed(self.steps())][-1]

    def best(self) -> int | None:
        """Returns the step with the highest score (the oldest of equals), None without scores."""
        scored = [(record["score"], s) for s in self.steps() if (record := self._record(s))]
        best = max(((score, -s) for score, s in scored if score is not None), default=None)
        return None if best is None else -best[1]

    def restore(
        self, template: PyTree, step: int | None = None, log: Callable[[str], object] = print
    ) -> tuple[PyTree, int, dict] | None:
        """Returns (state, step, extra) of the newest intact checkpoint, or of exactly `step`.

        The arrays come back bit for bit with the shardings of `template`, a pytree of jax.Array or
        of jax.ShapeDtypeStruct with shardings. A damaged checkpoint is said in one line, passed
        over for the one before and, once that is restored, renamed to `damaged-STEP`, so that the
        run can save the step again. None when there is no complete checkpoint.

        Raises:
          UserError: `step` is missing or damaged, every checkpoint is damaged, or the state's
            structure, shapes or dtypes are not the template's.
        """
        self.wait()
        steps = _agreed(self.steps())
        if step is not None and step not in steps:
            raise UserError(f"no checkpoint {step} in {self._directory}; there are: {steps}")
        if step is None:
            for interrupted in sorted(set(self._step_directories()) - set(steps)):
                log(f"{self._path(interrupted)} skipped: an interrupted save (no {manifest.NAME})")
        damaged: dict[int, str] = {}
        for candidate in steps[::-1] if step is None else [step]:
            result = self._attempt(candidate, template)
            if not isinstance(result, str):
                self._retire(damaged, candidate, log)
                return result[0], candidate, result[1]
            damaged[candidate] = result
        if not damaged:
            return None
        reasons = "; ".join(f"{s}: {reason}" for s, reason in damaged.items())
        what = "this checkpoint" if step is not None else "every checkpoint"
        raise UserError(f"{what} in {self._directory} is damaged ({reasons}): put back a copy")

    def drop_after(self, step: int) -> None:
        """Removes the checkpoints after `step`, for a run that goes on from there."""
        self.close()
        if jax.process_index() == 0:
            for later in (s for s in self.steps() if s > step):
                self._remove(later)
        _agreed([])  # nobody goes on before they are gone

    def wait(self) -> None:
        """Blocks until the last save is on disk with its manifest; raises what made it fail."""
        if self._sealer is not None:
            self._sealer.join()
            self._sealer = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Waits as `wait` does and frees Orbax's threads; a later save opens them again."""
        try:
            self.wait()
        finally:
            if self._manager is not None:
                self._manager.close()
                self._manager = None

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _step_directories(self) -> list[int]:
        if not self._directory.is_dir():
            return []
        names = [p.name for p in self._directory.iterdir() if p.is_dir()]
        return [int(n) for n in names if n.isdecimal() and n == str(int(n))]

    def _open(self) -> ocp.CheckpointManager:
        """Opens the manager at the first save: it clears leftovers, which a reader must not."""
        if self._manager is None:
            if jax.process_index() == 0:
                for step in set(self._step_directories()) - set(self.steps()):
                    self._set_aside(step, "interrupted")
            _agreed([])  # the others wait until the primary process is through
            # Retention is ours (_prune): Orbax would delete before the new manifest is written,
            # and its BestN reads every score at start and fails on a damaged one.
            # Its timeouts go by the wall clock: one that is set ahead must not end a save.
            options = ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True,
                lightweight_initialize=True,
                async_options=ocp.AsyncOptions(timeout_secs=_CENTURY),
            )
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        return self._manager

    def _seal(self, manager: ocp.CheckpointManager, step: int) -> None:
        """Runs in a thread: waits for Orbax's last rename, writes the manifest, then prunes."""
        # post_finalization_callback would be too early: Orbax still writes the commit time then.
        try:
            manager.wait_until_finished()
            if jax.process_index() == 0:
                manifest.write(self._path(step))
                self._prune()
        except BaseException as error:
            self._error = error

    def _prune(self) -> None:
        steps = self.steps()
        for step in set(steps[:-2]) - {self.best()}:
            self._remove(step)

    def _remove(self, step: int) -> None:
        # Renamed first, so that a deletion cut short never looks like a damaged checkpoint.
        leaving = self._directory / f"{step}{_TEMPORARY}"
        self._path(step).rename(leaving)
        shutil.rmtree(leaving)

    def _record(self, step: int) -> dict | None:
        """Reads the JSON part; None unless it is as the manifest says."""
        try:
            content = (self._path(step) / _RECORD).read_bytes()
            listed = manifest.lists(self._path(step), _RECORD, content)
            return json.loads(content) if listed else None
        except OSError:
            return None

    def _damage(self, step: int) -> str | None:
        """Returns what is wrong with the files of `step`, as the primary process finds them."""
        reason = manifest.find_damage(self._path(step)) if jax.process_index() == 0 else None
        (is_damaged,) = _agreed([int(reason is not None)])
        return (reason or "see the first process") if is_damaged else None

    def _check_layout(self, step: int, template: PyTree) -> None:
        there, here = self._record(step)["layout"], _layout(template)
        differing = [k for k in here | there if here.get(k) != there.get(k)]
        if differing:
            first = differing[0]
            raise UserError(
                f"{self._path(step)} does not fit this configuration in {len(differing)} arrays: "
                f"{first} is {there.get(first, 'absent')} there, {here.get(first, 'absent')} here; "
                "use the settings it was saved with or another workdir"
            )

    def _attempt(self, step: int, template: PyTree) -> tuple[PyTree, dict] | str:
        """Returns (state, extra), or in a few words why `step` cannot be read."""
        reason = self._damage(step)
        if reason is not None:
            return reason
        self._check_layout(step, template)
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template
        )
        items = {"state": ocp.args.StandardRestore(abstract), "record": ocp.args.JsonRestore()}
        try:
            with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
                restored = reader.restore(self._path(step), args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax raises anything from Exception to KeyError
            return f"Orbax: {type(error).__name__} {one_line(error)}"
        return restored.state, restored.record["extra"]

    def _retire(self, damaged: dict[int, str], used: int, log: Callable[[str], object]) -> None:
        """Renames the damaged steps; only now, since `used` shows that reading works at all."""
        if damaged:
            self.close()  # its manager would still count them
        for step, reason in damaged.items():
            where = ""
            if jax.process_index() == 0 and self._path(step).is_dir():
                where = f", renamed to {self._set_aside(step, 'damaged').name}"
            log(f"{self._path(step)} is damaged ({reason}): using step {used} instead{where}")

    def _set_aside(self, step: int, why: str) -> Path:
        target, n = self._directory / f"{why}-{step}", 2
        while target.exists():
            target, n = self._directory / f"{why}-{step}-{n}", n + 1
        return self._path(step).rename(target)


def _agreed(numbers: Sequence[int]) -> list[int]:
    """Returns the primary process's `numbers` (its last 64, none negative) in every process."""
    if jax.process_count() == 1:
        return list(numbers)
    from jax.experimental import multihost_utils

    padded = np.full(64, -1, np.int32)
    kept = list(numbers)[-64:]
    padded[: len(kept)] = kept
    return [int(n) for n in multihost_utils.broadcast_one_to_all(padded) if n >= 0]


def _layout(tree: PyTree) -> dict[str, str]:
    """Describes a pytree: path of each leaf or empty container -> "float32[3, 4]" or "empty"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(
        tree, is_leaf=lambda x: isinstance(x, dict | list | tuple) and not x
    )
    named = ((jax.tree_util.keystr(path), x) for path, x in leaves)
    return {k: f"{x.dtype}{list(x.shape)}" if hasattr(x, "dtype") else "empty" for k, x in named}
