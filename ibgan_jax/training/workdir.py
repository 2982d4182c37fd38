"""The files of a run's folder and the record of what made them."""

from __future__ import annotations

import copy
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax

from ibgan_jax import __version__, distributed
from ibgan_jax import config as configs
from ibgan_jax.errors import UserError, one_line

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_TREE = Path(__file__).resolve().parents[2]


class Workdir:
    """Paths of a run: config.json, checkpoints/, metrics.jsonl, figures/, scores, report.

    One that was unpacked has weights.npz instead of checkpoints/.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.weights = self.path / "weights.npz"
        self.metrics = self.path / "metrics.jsonl"
        self.figures = self.path / "figures"
        self.scores = self.path / "scores.json"
        self.report = self.path / "report.html"
        self.timing = self.path / "timing.json"
        self.diverged = self.path / "diverged.json"
        self.study = self.path / "study.json"  # of a folder of runs

    @property
    def best(self) -> Workdir:
        """This run again, with scores, figures and page of its best checkpoint in best/."""
        beside = copy.copy(self)
        folder = self.path / "best"
        beside.scores, beside.report = folder / self.scores.name, folder / self.report.name
        beside.figures = folder / self.figures.name
        return beside

    def create(self) -> None:
        """Raises UserError when the folder, or one that belongs in it, cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path} ({error.strerror}); choose another --workdir"
            ) from error
        for folder in (self.checkpoints, self.figures):
            if folder.exists() and not folder.is_dir():
                raise UserError(f"{folder} is not a folder; remove it or choose another --workdir")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns the system's refusal to write, as on a full disk, into one line: UserError."""
        try:
            yield
        except OSError as error:
            if error.strerror is None:  # not the system's
                raise
            raise UserError(
                f"{error.filename or self.path}: {error.strerror}; what is saved stays, and the "
                "same command goes on once that is put right"
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process trains here; a lock ends with its process, however that ends.

        Raises:
          UserError: another one trains here.
        """
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another process trains in {self.path}; "
                    "wait for it or choose another --workdir"
                ) from error
            except OSError:
                pass  # a file system that knows no locks
            yield

    def recorded(self) -> dict[str, Any] | None:
        """The content of config.json, its config `completed`; None when there is none.

        Raises:
          UserError: it is damaged.
        """
        try:
            record = json.loads(self.config.read_text())
            return {**record, "config": configs.completed(record["config"])}
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, NotADirectoryError) as error:
            raise UserError(
                f"{self.config} cannot be read ({error}); restore or remove it"
            ) from error

    def must_exist(self) -> dict[str, Any]:
        """What config.json records of the run.

        Raises:
          UserError: there is no run in this folder.
        """
        recorded = self.recorded()
        if recorded is None:
            kept = self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
            more = ", which says what its checkpoints are of; put back a copy" if kept else ""
            raise UserError(f"{self.path} holds no run: there is no config.json in it{more}")
        return recorded

    def write_scores(self, scores: dict[str, Any]) -> None:
        """As `write_json`, with a checksum, for what is damaged must never be taken for a score."""
        noted = {**scores["run"], "sha256": _digest(scores)}
        self.write_json(self.scores, {**scores, "run": noted})

    def read_scores(self) -> dict[str, Any] | None:
        """What `write_scores` was given; None when there are no scores.

        Raises:
          UserError: they are damaged.
        """
        try:
            scores = json.loads(self.scores.read_text())
            # Those written before there was one have no checksum.
            noted = scores["run"].pop("sha256", None)
            if noted not in (None, _digest(scores)):
                raise ValueError("its checksum is of other numbers")
            scores["run"]["checkpoint_step"]
            return scores
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{self.scores} is damaged ({one_line(error)}); score again with "
                f"--mode=evaluate --workdir={self.path}"
            ) from error

    def write_json(self, path: Path, content: Any) -> None:
        """Atomic: a reader sees the old file or the new one. Of several processes one writes.

        Raises:
          UserError: it cannot be written.
        """
        if not distributed.is_main_process():
            return
        temporary = path.with_name(f".{path.name}.tmp")
        with self.explained():
            path.parent.mkdir(exist_ok=True)
            with open(temporary, "w") as file:
                json.dump(content, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)


def _digest(scores: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(scores, sort_keys=True).encode()).hexdigest()


def environment() -> dict[str, Any]:
    """Versions, device and commit, as recorded in config.json."""
    versions = {"ibgan_jax": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        versions[package] = importlib.metadata.version(package)
    device = jax.devices()[0]
    return {
        "versions": versions,
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": len(jax.devices()),
        },
        "commit": _commit(),
    }


def _commit() -> str | None:
    """The commit of the checkout that the package runs from.

    Where .git did not travel with the tree, or git is not installed, it is what the environment
    variable IBGAN_COMMIT holds, else the file COMMIT at the top of the tree; None without either.
    """
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=_TREE,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        commit = out.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = os.environ.get("IBGAN_COMMIT", "").strip()
        with suppress(OSError):
            commit = commit or (_TREE / "COMMIT").read_text().strip()
    return commit or None
