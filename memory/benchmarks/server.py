"""Starts the real server for a benchmark or the demo, and clients that send it requests over HTTP."""

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any
from urllib.parse import urlsplit

import psutil
from django.conf import settings

START_SECONDS = 120


class ServerNotReady(RuntimeError):
    """The server stopped while starting, or took too long. The message ends with its log."""


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, and its processes."""

    address: str
    process: psutil.Process

    def resident_bytes(self) -> int:
        """Memory of all its processes; memory that they share counts once for each."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in family)


@dataclass
class Answers:
    """A client's answers: milliseconds of those with status 200 or 202; counts of 429 and 503, and of all others."""

    milliseconds: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    seconds: float = 0.0

    def count(self, status: int, answer: Any, milliseconds: float) -> None:
        """Take one answer in, as Client gives it."""
        if status in (200, 202):
            self.milliseconds.append(milliseconds)
        elif status in (429, 503):
            self.refused += 1
        else:
            self.failed += 1

    def add(self, other: "Answers") -> None:
        """Take another client's answers in; both worked for the same time."""
        self.milliseconds += other.milliseconds
        self.refused += other.refused
        self.failed += other.failed
        self.seconds = max(self.seconds, other.seconds)


@contextmanager
def running_server(*, checkout: Path | None = None, **environment: str) -> Iterator[Server]:
    """The server of `make serve` on a free port, ready to answer, until the block ends.

    `checkout`: another folder to serve from. `environment`: variables besides this process's own. Raises
    ServerNotReady.
    """
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "gunicorn", "-c", "project/gunicorn.py", "project.wsgi"]
    with (
        tempfile.TemporaryFile("w+") as log,
        tempfile.TemporaryDirectory(prefix="sealed-memory-metrics-") as metrics,
        subprocess.Popen(  # noqa: S603
            command,
            cwd=checkout or settings.BASE_DIR,
            env={
                **os.environ,
                "BIND": address,
                "INSECURE_HTTP": "1",
                "PROMETHEUS_MULTIPROC_DIR": metrics,
                **environment,
            },
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            _wait_until_ready(f"http://{address}", process)
            yield Server(f"http://{address}", psutil.Process(process.pid))
        except ServerNotReady as error:
            log.seek(0)
            raise ServerNotReady(f"{error}\n{log.read()[-2000:]}") from None
        finally:
            process.terminate()


class Client:
    """One connection that posts JSON with a token and keeps the time."""

    prefix = "/api/v1/"

    def __init__(self, address: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=900)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def post(self, path: str, body: Mapping[str, Any]) -> tuple[int, Any, float]:
        """Status, decoded answer, and milliseconds from the first byte sent to the last one read."""
        return self.send("POST", path, body)

    def send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str
    ) -> tuple[int, Any, float]:
        """As `post`, with any method, and more headers."""
        data = None if body is None else json.dumps(body).encode()
        given = {**self._headers, **headers}
        started = perf_counter()
        self._connection.request(method, f"{self.prefix}{path}", data, given)
        response = self._connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer), (perf_counter() - started) * 1000

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def hang_up(self) -> None:
        """End the connection under the feet of a request, whose thread gets an OSError or an HTTPException."""
        if self._connection.sock is not None:
            self._connection.auto_open = 0
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def work(self, path: str, bodies: Iterator[Mapping[str, Any]], going_on: Callable[[], bool]) -> Answers:
        """Post one body after the other until `going_on()` is false."""
        answers = Answers()
        started = monotonic()
        while going_on():
            answers.count(*self.post(path, next(bodies)))
        answers.seconds = monotonic() - started
        return answers


def closed_loop(
    connect: Callable[[], Client], path: str, bodies: Sequence[Iterator[Mapping[str, Any]]], seconds: float
) -> Answers:
    """As many clients as there are `bodies`, each sending its next request when it has the answer to the last."""
    found = [Answers() for _ in bodies]
    give_up = monotonic() + seconds

    def run(number: int) -> None:
        with closing(connect()) as client:
            found[number] = client.work(path, bodies[number], lambda: monotonic() < give_up)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    together = Answers()
    for answers in found:
        together.add(answers)
    return together


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(address: str, process: "subprocess.Popen[Any]") -> None:
    give_up = monotonic() + START_SECONDS
    while monotonic() < give_up:
        if process.poll() is not None:
            raise ServerNotReady("The server stopped while starting.")
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):  # noqa: S310
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            sleep(0.1)
    raise ServerNotReady("The server was not ready in time.")
