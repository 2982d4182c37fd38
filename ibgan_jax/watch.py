"""Processes of one job that watch each other, so that none waits for ever for one that is gone.

JAX's own runtime waits for minutes in a collective whose other side has raised, and ends a process
with a page of C++ where one has died. Here every process holds a connection to the first one, says
each second that it is there, and says why it ends; who is silent or cut off counts as lost. What
the first process learns it tells all others.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

BEAT_SECONDS = 1.0
SILENT_SECONDS = 25.0
CONNECT_SECONDS = 60.0

OnLoss = Callable[[str, int], Any]


class Address:
    """Where the first process listens, and the word that shows that a caller belongs to the job."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self.host, self.port, self.token = host, port, token

    def as_text(self) -> str:
        return json.dumps([self.host, self.port, self.token])

    @staticmethod
    def of(text: str) -> Address:
        return Address(*json.loads(text))


class _Line:
    """A connection on which both sides send JSON lines."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        self.name, self.ended = name, False
        self._connection = connection
        self._file = connection.makefile("rb")
        self._sending = threading.Lock()
        connection.settimeout(SILENT_SECONDS)

    def send(self, message: dict[str, Any]) -> None:
        """Raises OSError when the other side is gone."""
        with self._sending:
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any] | None:
        """The next message; None when the other side is gone. Raises OSError when it is silent."""
        line = self._file.readline(65_536)
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


class Watch:
    """One process's part in the watching.

    `on_loss(reason, status)` is called in a thread, once, when another process is lost or has
    failed; it should end this one. `status` is the exit status of the one that failed, else 1.
    """

    def __init__(self, process: int, processes: int, on_loss: OnLoss) -> None:
        self._process, self._processes, self._on_loss = process, processes, on_loss
        self._lines: list[_Line] = []
        self._changing = threading.Lock()
        self._over = False
        self._server: socket.socket | None = None
        self._token = ""

    def listen(self, host: str) -> Address:
        """For the first process: waits in the background for the others, who call `host`."""
        self._token = secrets.token_hex(8)
        self._server = socket.create_server(("", 0))
        self._server.settimeout(CONNECT_SECONDS)
        self._start(self._accept)
        self._start(self._beat)
        return Address(host, self._server.getsockname()[1], self._token)

    def join(self, address: Address) -> None:
        """For the others. Raises OSError when the first process cannot be reached."""
        connection = socket.create_connection((address.host, address.port), CONNECT_SECONDS)
        line = _Line(connection, self._named(0))
        line.send({"token": address.token, "process": self._process})
        self._add(line)
        self._start(self._beat)

    def leave(self, reason: str = "", status: int = 0) -> None:
        """Says that this process ends, and if it failed why."""
        with self._changing:
            if self._over:
                return
            self._over = True
        self._tell({"ended": True, "reason": reason, "status": status})
        for line in self._lines:
            line.close()
        if self._server is not None:
            self._server.close()

    def _named(self, process: int) -> str:
        return f"process {process} of {self._processes}"

    def _start(self, work: Callable[..., Any], *given: Any) -> None:
        threading.Thread(target=work, args=given, name="watch", daemon=True).start()

    def _add(self, line: _Line) -> None:
        with self._changing:
            self._lines.append(line)
        self._start(self._listen_to, line)

    def _accept(self) -> None:
        missing = set(range(1, self._processes))
        until = time.monotonic() + CONNECT_SECONDS
        while missing and time.monotonic() < until and not self._over:
            try:
                connection, _ = self._server.accept()
                line = _Line(connection, "")
                said = line.receive() or {}
            except (OSError, ValueError):
                continue
            if said.get("token") != self._token or said.get("process") not in missing:
                line.close()  # somebody else who came across the port
                continue
            missing.remove(said["process"])
            line.name = self._named(said["process"])
            self._add(line)
        if missing:
            self._lost(f"{self._named(min(missing))} never joined")

    def _beat(self) -> None:
        while not self._over:
            self._tell({})
            time.sleep(BEAT_SECONDS)

    def _tell(self, message: dict[str, Any]) -> None:
        for line in list(self._lines):
            with contextlib.suppress(OSError):  # `_listen_to` finds out why
                line.send(message)

    def _listen_to(self, line: _Line) -> None:
        while True:
            try:
                message = line.receive()
            except (OSError, ValueError) as error:
                silent = isinstance(error, TimeoutError)
                message, how = None, f"silent for {SILENT_SECONDS:.0f} s" if silent else str(error)
            else:
                how = "killed, or its connection was cut"
            if message is None:
                if not line.ended:
                    self._lost(f"{line.name} is lost: {how}")
                return
            if message.get("lost"):  # what the first process has learned of another
                self._lost(message["lost"], message["status"])
                return
            if message.get("ended"):
                line.ended = True
                if message["status"]:
                    why = f"{line.name} failed: {message['reason']}"
                    self._lost(why, message["status"])

    def _lost(self, reason: str, status: int = 1) -> None:
        with self._changing:
            if self._over:
                return
            self._over = True
        self._tell({"lost": reason, "status": status})
        self._on_loss(reason, status)
