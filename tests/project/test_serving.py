"""The real server against clients that are slow or lie, and as it ends."""

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from keys.models import ProcessHeartbeat
from tests.factories import API, make_token, make_user, vector
from tests.serving import Server, is_closed, serving, start

pytestmark = pytest.mark.django_db(transaction=True)

QUERY = f"{API}/memories/query"
HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Endless: "
SOON = 5.0
"""Seconds for an answer that takes milliseconds: on a busy machine, yet before any deadline would free a thread."""


@pytest.fixture(scope="module")
def metrics_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


@pytest.fixture(scope="module")
def server(django_db_setup: None, metrics_base: Path) -> Iterator[Server]:
    """Two processes of a thread each, so that two slow clients would be enough to stop them."""
    with serving(WEB_CONCURRENCY="2", WEB_THREADS="1", PROMETHEUS_MULTIPROC_DIR=str(metrics_base)) as running:
        yield running


def assert_answers(server: Server, secret: str | None = None) -> None:
    bearer = f"Bearer {secret or make_token(make_user())}"
    for _ in range(4):  # both processes, more likely than not
        assert server.ask("/healthz").seconds < SOON
    answer = server.ask(QUERY, {"query": "a", "embedding": vector()}, Authorization=bearer)
    assert (answer.status, answer.seconds < SOON) == (200, True)


@contextlib.contextmanager
def held(server: Server, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that have sent this and say no more."""
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(count)]
        for connection in connections:
            connection.sendall(sent)
        yield connections


def head(path: str, secret: str, length: int) -> bytes:
    fields = ("Host: localhost", f"Authorization: Bearer {secret}", "Content-Type: application/json")
    return "\r\n".join([f"POST {path} HTTP/1.1", *fields, f"Content-Length: {length}", "", ""]).encode()


@pytest.mark.parametrize("count", [64, 500])
def test_half_sent_heads_hold_nobody_up(server: Server, count: int) -> None:
    with held(server, count, HALF_A_HEAD):
        assert_answers(server)


def test_trickling_bodies_hold_nobody_up(server: Server) -> None:
    secret = make_token(make_user())
    with held(server, 64, head(QUERY, secret, 4_000)) as connections:
        for _ in range(3):
            for connection in connections:
                connection.sendall(b" ")
            assert_answers(server, secret)


@pytest.mark.parametrize("sent", [b"", b"GET ", HALF_A_HEAD, b"POST /healthz HTTP/1.1\r\nContent-Length: 9\r\n\r\n1"])
def test_a_request_that_is_not_sent_in_time_is_given_up(impatient: Server, sent: bytes) -> None:
    with held(impatient, 1, sent) as [connection]:
        assert is_closed(connection)


@pytest.mark.parametrize("sent", [HALF_A_HEAD, b"POST /healthz HTTP/1.1\r\nContent-Length: 9999\r\n\r\n"])
def test_a_request_that_trickles_for_ever_is_given_up(impatient: Server, sent: bytes) -> None:
    with held(impatient, 1, sent) as [connection]:
        connection.settimeout(0.1)
        for _ in range(100):
            with contextlib.suppress(TimeoutError):
                if is_closed(connection):
                    return
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"a")
    pytest.fail("Ten seconds later the server is still listening.")


@pytest.fixture(scope="module")
def impatient(django_db_setup: None, metrics_base: Path) -> Iterator[Server]:
    """A server that believes in HTTPS, and waits a second for anything."""
    seconds = {"REQUEST_HEAD_SECONDS": "1", "REQUEST_BODY_SECONDS": "1"}
    with serving(INSECURE_HTTP="0", PROMETHEUS_MULTIPROC_DIR=str(metrics_base), **seconds) as running:
        yield running


def test_a_caller_is_not_believed_to_have_come_by_tls(impatient: Server) -> None:
    for name in ("X-Forwarded-Proto", "X-Forwarded-Protocol", "X-Forwarded-SSL", "X_Forwarded_Proto"):
        for value in ("https", "ssl", "on"):
            assert impatient.ask(f"{API}/docs/", **{name: value}).status == 301


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Script-Name", "PATH_INFO", "REMOTE_ADDR", "REMOTE_USER"])
@pytest.mark.parametrize("value", ["/odd", "/healthz", "", "http://elsewhere/"])
def test_a_caller_says_nothing_about_where_the_application_is(server: Server, name: str, value: str) -> None:
    assert server.ask("/healthz", **{name: value}).status == 200


def test_what_has_begun_is_finished_before_the_server_ends(metrics_base: Path) -> None:
    body = b'{"query": "a", "embedding": [' + b"0.1, " * 383 + b"0.1]}"
    secret = make_token(make_user())
    with serving(DRAIN_SECONDS="1", PROMETHEUS_MULTIPROC_DIR=str(metrics_base)) as server:
        [worker] = psutil.Process(server.process.pid).children()
        assert ProcessHeartbeat.objects.filter(pid=worker.pid).exists()
        with held(server, 1, head(QUERY, secret, len(body)) + body[:100]) as [begun], held(server, 1, b"") as [idle]:
            server.process.send_signal(signal.SIGTERM)
            # Before, it may be 503 as well: while the embedding model is being loaded.
            while b"draining" not in (ready := server.ask("/readyz")).body:
                assert ready.status in (200, 503)
            assert ready.status == 503
            assert server.ask("/healthz").headers["Connection"] == "close"
            begun.sendall(body[100:])
            assert begun.recv(12) == b"HTTP/1.1 200"
            assert is_closed(idle)
        assert server.process.wait(20) == 0
    assert not ProcessHeartbeat.objects.filter(pid=worker.pid).exists()


def test_a_second_start_leaves_the_counts_of_the_first_alone(tmp_path: Path) -> None:
    base, log = tmp_path / "metrics", tmp_path / "log"
    with serving(PROMETHEUS_MULTIPROC_DIR=str(base)) as server:
        [folder] = base.glob("instance-*")
        counted = {path.name for path in folder.glob("counter_*.db")}
        assert counted
        second = start(server.port, log, PROMETHEUS_MULTIPROC_DIR=str(base))
        assert second.process.wait(60) != 0
        assert "in use" in log.read_text()
        assert {path.name for path in folder.glob("counter_*.db")} == counted
        # The third start sweeps what the second one left, and only that.
        [left] = set(base.glob("instance-*")) - {folder}
        with serving(PROMETHEUS_MULTIPROC_DIR=str(base)):
            assert folder.exists() and not left.exists()


def test_a_server_that_runs_as_root_says_so(tmp_path: Path) -> None:
    with serving(tmp_path / "log", PROMETHEUS_MULTIPROC_DIR=str(tmp_path)):
        pass
    assert ("run as root" in (tmp_path / "log").read_text()) == (os.geteuid() == 0)
