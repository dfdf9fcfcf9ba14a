"""The real server as a process of its own, and clients that speak to it byte by byte."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from tests.children import child_environment

START_SECONDS = 120
ANSWER_SECONDS = 20


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


@dataclass(frozen=True)
class Server:
    """A server that listens on `port` of this machine."""

    process: subprocess.Popen[bytes]
    port: int

    def ask(self, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own. Raises OSError when it is not answered in time."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            fields = {"Host": "localhost", "Content-Type": "application/json", **headers}
            connection.request("GET" if body is None else "POST", path, data, fields)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read(), time.monotonic() - began)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS)

    def wait_until_it_answers(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                self.ask("/healthz")
                return
            time.sleep(0.1)
        raise TimeoutError("The server did not start.")


@contextlib.contextmanager
def serving(log: Path | None = None, **environment: str) -> Iterator[Server]:
    """The server of `make serve` on the test database, with these environment variables, until the block ends."""
    server = start(log=log, **environment)
    try:
        server.wait_until_it_answers()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(ANSWER_SECONDS)


def start(port: int | None = None, log: Path | None = None, **environment: str) -> Server:
    """The server's process, which may not answer yet. `log`: where its standard error goes."""
    port = port or free_port()
    command = [sys.executable, "-m", "gunicorn", "-c", "project/gunicorn.py", "project.wsgi"]
    defaults = {"WEB_CONCURRENCY": "1", "DRAIN_SECONDS": "0", "LOG_LEVEL": "ERROR", "BIND": f"127.0.0.1:{port}"}
    inherited = {name: value for name, value in child_environment().items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    with (log or Path(os.devnull)).open("w") as stderr:
        process = subprocess.Popen(
            command, cwd=settings.BASE_DIR, env={**inherited, **defaults, **environment}, stderr=stderr
        )
    return Server(process, port)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end hangs up within the connection's timeout."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True
