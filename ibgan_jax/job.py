"""A job of several processes: how they find each other, and how they end together."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading

import jax
import numpy as np

from ibgan_jax.errors import UserError, one_line
from ibgan_jax.watch import Address, Watch

JOIN_SECONDS = 120
SHUTDOWN_SECONDS = 30
ADVICE = "what is saved stays; start the same command again in all processes and it goes on"
# What launchers tell each process of how many it is one.
SIZES = ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")

_watch: Watch | None = None


def start(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the other processes, if there are any; call it before anything touches a device.

    Slurm, Open MPI and TPU hosts are recognised by their environment; elsewhere every process gets
    the same `coordinator` (HOST:PORT of process 0) and number of `processes`, and its own number
    `process`. From then on, when one is lost or fails, all others name it and end.

    Raises:
      UserError: half of the three is given, they do not fit together, or the job does not form.
    """
    global _watch
    given = (coordinator, processes, process)
    if any(x is not None for x in given):
        _check(*given)
    elif not _announced():
        return
    # JAX ends a process that waits for others in vain with a page of C++.
    waiting = threading.Timer(JOIN_SECONDS, _nobody_came, [processes, coordinator])
    waiting.daemon = True
    waiting.start()
    # Signals are our own business: the service would take SIGTERM away from us.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=2 * JOIN_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of the job do not come together: {one_line(error)}"
        ) from error
    finally:
        waiting.cancel()
    if jax.process_count() == 1:
        return
    _watch = Watch(jax.process_index(), jax.process_count(), _lost)
    address = None
    if jax.process_index() == 0:
        host = coordinator.rpartition(":")[0] if coordinator else socket.gethostname()
        address = _watch.listen(socket.gethostbyname(host))
    text = _broadcast(address.as_text() if address else "")
    if jax.process_index():
        try:
            _watch.join(Address.of(text))
        except OSError as error:
            raise UserError(f"process 0 cannot be reached at {text} ({error})") from error


def end(status: int = 0, failure: str = "") -> None:
    """Leaves the job. After a `failure` the others are told why, and this process ends at once."""
    if _watch is None:
        return
    if not failure:
        jax.distributed.shutdown()
        _watch.leave()
        return
    _watch.leave(failure, status)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # JAX would wait for the others, who will not come


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    if coordinator is None or processes is None or process is None:
        raise UserError(
            "--coordinator=HOST:PORT, --num_processes=N and --process_id=I are given together"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, of process 0")
    if not 0 <= process < processes:
        raise UserError(
            f"--process_id={process} must be from 0 to --num_processes={processes} less one"
        )


def _announced() -> bool:
    """Whether the environment speaks of several processes, or of a TPU host, where it may."""
    if any(os.environ.get(name, "1") not in ("", "1") for name in SIZES):
        return True
    on_tpu = os.environ.get("JAX_PLATFORMS", "tpu") in ("", "tpu")
    return on_tpu and importlib.util.find_spec("libtpu") is not None


def _broadcast(text: str) -> str:
    """Process 0's text in every process."""
    from jax.experimental import multihost_utils

    padded = np.zeros(512, np.uint8)
    data = text.encode()
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(padded)).rstrip(b"\0").decode()


def _nobody_came(processes: int | None, coordinator: str | None) -> None:
    many = f"of {processes} processes " if processes else ""
    where = f", or {coordinator} cannot be reached" if coordinator else ""
    print(
        f"error: the job {many}did not form within {JOIN_SECONDS} s: "
        f"not all of them have been started{where}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def _lost(reason: str, status: int) -> None:
    print(f"error: {reason}; {ADVICE}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)
