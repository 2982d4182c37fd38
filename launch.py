"""Trains, evaluates and reports; README.md shows how.

python launch.py --config=configs/dsprites.py[:MODEL] [--workdir=DIR] [--config.KEY=VALUE ...]
    [--config.population.KEY="(VALUE,VALUE)" ...]
python launch.py --mode=evaluate --workdir=DIR [DIR ...] [--step=N] [--metrics=NAME,NAME]
    [--classifier=PATH]
python launch.py --mode=report --workdir=DIR [--step=N]
python launch.py --mode=evaluate|report --pretrained=results/NAME   # what ibgan_jax.unpack wrote
python launch.py --mode=prepare --config=configs/NAME.py --archives=PATH

In a job of several processes, where Slurm, Open MPI or a TPU does not say so, each gets
    --coordinator=HOST:PORT --num_processes=N --process_id=I
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

try:
    from absl import flags, logging
    from ml_collections import config_flags
except ModuleNotFoundError as error:
    package = {"absl": "absl-py", "ml_collections": "ml-collections"}.get(error.name, error.name)
    print(f"error: {error.name} is missing; pip install {package}", file=sys.stderr)
    sys.exit(2)

from ibgan_jax.errors import UserError

STARTED = time.monotonic()  # what train.max_minutes counts from
MODES = ("train", "evaluate", "report", "prepare")
INTERRUPTED = "interrupted; what is saved stays, the same command goes on"
OVERRIDES = ("--config.", "-config.")


def parse(argv: list[str]) -> tuple[flags.FlagValues, list[str]]:
    """The flags, with the config that they name, and further workdirs to evaluate.

    Raises:
      UserError: an unknown flag, config file, config key or mode.
    """
    # First without the overrides, so that an unknown key can be answered with the known ones.
    overrides = [word for word in argv if word.startswith(OVERRIDES)]
    values, rest = _read([word for word in argv if word not in overrides])
    if values.mode not in MODES:
        raise UserError(f"unknown mode {values.mode!r}; choose one of: {', '.join(MODES)}")
    _check_pretrained(values)
    named = values.workdir or values.pretrained or (values.mode == "evaluate" and rest)
    if values.config is None and (values.mode in ("train", "prepare") or not named):
        needs = "" if values.mode in ("train", "prepare") else " or --workdir=DIR"
        raise UserError(f"--mode={values.mode} needs --config=configs/NAME.py{needs}")
    if (values.mode == "prepare") != (values.archives is not None):
        raise UserError(
            "--mode=prepare and --archives=PATH, the file or folder that the data set's owner "
            "publishes, come together"
        )
    for word in overrides:
        _check_key(values.config, word.split("=")[0].lstrip("-").removeprefix("config."))
    values, rest = _read(argv)
    if rest and values.mode != "evaluate":
        raise UserError(f"unexpected argument {rest[0]!r}; settings are --config.KEY=VALUE")
    return values, rest


def _check_pretrained(values: flags.FlagValues) -> None:
    """Raises UserError when --pretrained names a folder that is not to be scored or drawn."""
    if values.pretrained is None:
        return
    if values.mode not in ("evaluate", "report"):
        raise UserError(
            "--pretrained=DIR is for --mode=evaluate and --mode=report: weights alone, without the "
            "optimizers' state, cannot be trained on"
        )
    if values.workdir is not None:
        raise UserError("--pretrained=DIR and --workdir=DIR name the same thing; give one of them")


def _read(argv: list[str]) -> tuple[flags.FlagValues, list[str]]:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "configs/NAME.py[:MODEL]", flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string("workdir", None, "runs/NAME-MODEL-seedS unless given", flag_values=values)
    flags.DEFINE_string("pretrained", None, "a folder of unpacked runs", flag_values=values)
    flags.DEFINE_string("mode", "train", ", ".join(MODES), flag_values=values)
    flags.DEFINE_list("metrics", None, "METRIC or METRIC:PROTOCOL, ...", flag_values=values)
    flags.DEFINE_string("classifier", None, "FID's network: a folder or a .pth", flag_values=values)
    flags.DEFINE_integer("step", None, "the checkpoint to score or draw", flag_values=values)
    flags.DEFINE_string("archives", None, "what a data set is prepared from", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "of the job", flag_values=values)
    flags.DEFINE_integer("process_id", None, "of this one, from 0", flag_values=values)
    try:
        rest = values(argv)[1:]
        if values.config is not None:
            values.config.lock()  # a file that could not be read is found out here
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"no such config file: {_given(argv, 'config')}") from error
    except Exception as error:  # absl and ml_collections raise many kinds for a mistyped flag
        raise UserError(" ".join(str(error).split())) from error
    return values, rest


def _given(argv: list[str], flag: str) -> str:
    named = [word.split("=", 1)[1] for word in argv if word.lstrip("-").startswith(f"{flag}=")]
    return named[-1] if named else f"--{flag}"


def _check_key(config: Any, key: str) -> None:
    if config is None:
        raise UserError(f"--config.{key} needs --config=configs/NAME.py")
    *path, name = key.split(".")
    node = config
    for part in path:
        node = node.get(part) if hasattr(node, "keys") else None
    if not hasattr(node, "keys"):
        raise UserError(
            f"unknown config key {key!r}; the top ones are: {', '.join(sorted(config))}"
        )
    if name not in node:
        where = ".".join(path) or "the config"
        raise UserError(f"unknown config key {key!r}; {where} has: {', '.join(sorted(node))}")


def run(values: flags.FlagValues, more: list[str]) -> None:
    """Does what the flags ask for; `more` are further workdirs to evaluate."""
    from ml_collections import ConfigDict

    from ibgan_jax import config as configs
    from ibgan_jax import distributed, job
    from ibgan_jax.training import comparison, loop, reporting, study
    from ibgan_jax.training.run import build
    from ibgan_jax.training.workdir import Workdir

    config, folder = values.config, values.workdir or values.pretrained
    if values.mode == "prepare":
        from ibgan_jax.data import preparing

        at = config.dataset
        preparing.prepare(at.name, Path(values.archives), Path(at.dir).expanduser(), at.resolution)
        return
    job.start(values.coordinator, values.num_processes, values.process_id)
    log = print if distributed.is_main_process() else (lambda line: None)
    if folder is None and config is not None:
        folder = f"runs/{study.folder(config)}"
    workdir = None if folder is None else Workdir(Path(folder))
    if values.mode == "train" and study.is_study(config):
        file = values["config"].config_filename.partition(":")[0]
        study.train(config, Path(file).parent, workdir, log, STARTED)
    elif values.mode == "train":
        loop.train(config, workdir, log, STARTED)
    elif values.mode == "evaluate":
        found = comparison.find([Path(path) for path in ([folder] if folder else []) + more])
        if config is not None and not study.is_study(config):
            configs.check_same(workdir.must_exist()["config"], config, workdir.path)
        classifier = values.classifier and Path(values.classifier)
        comparison.evaluate(found, values.step, values.metrics, log, classifier)
    elif workdir.study.exists():
        comparison.report(workdir, log)
    else:
        recorded = workdir.must_exist()["config"]
        if config is None:
            config = ConfigDict(recorded)
        else:
            configs.check_same(recorded, config, workdir.path)
        reporting.report(build(config, log), workdir, values.step, log)


def main(argv: list[str]) -> int:
    """The exit status.

    0 done, 2 the user's mistake, 3 time is up with everything saved, 1 anything else.
    """
    if {"--help", "-help", "-h"} & set(argv):
        print(__doc__)
        return 0
    logging.set_verbosity(logging.ERROR)
    from ibgan_jax import job

    failure = ""
    try:
        run(*parse(argv))
        status = 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status, failure = 2, str(error)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        status, failure = 1, INTERRUPTED
    except Exception as error:
        from ibgan_jax.training.loop import InterruptedRunError, TimeIsUpError
        from ibgan_jax.training.member import DivergedError

        status = (3 if error.began else 2) if isinstance(error, TimeIsUpError) else 1
        if isinstance(
            error, DivergedError | InterruptedRunError | TimeIsUpError
        ):  # as all processes do together
            print(str(error), file=sys.stderr)
        else:
            traceback.print_exc()
            failure = repr(error)
    job.end(status, failure)
    return status


def interrupted(*_: Any) -> NoReturn:
    """Ends the process at a signal outside training, which saves first and handles its own.

    At once, not by an exception: inside a callback of JAX that would be swallowed or wrapped. Files
    are written atomically, so nothing is lost that SIGKILL would not cost.
    """
    sys.stdout.flush()
    print(INTERRUPTED, file=sys.stderr, flush=True)
    os._exit(1)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # a log file or pipe has each line at once
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, interrupted)
    sys.exit(main(sys.argv))
