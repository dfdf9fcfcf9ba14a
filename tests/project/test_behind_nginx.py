"""The sample configuration of nginx, run: slow clients stay in front, and a rolling restart loses no request."""

import contextlib
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings

from tests.factories import API, make_token, make_user, vector
from tests.serving import Server, free_port, start

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")
CONFIGURATION = settings.BASE_DIR / "docs" / "howto" / "nginx.conf"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
]


def adapted(folder: Path, port: int, instances: list[int]) -> str:
    """The sample without TLS, with ports and files of the test's own, as whoever runs the tests."""
    kept = []
    for line in CONFIGURATION.read_text().splitlines():
        match line.split():
            case ["pid" | "error_log" | "worker_processes" | "ssl_certificate" | "ssl_certificate_key", *_]:
                continue
            case ["listen", "80;"] | ["return", "301", *_]:
                continue
            case ["listen", "443", *_]:
                line = f"listen 127.0.0.1:{port};"
            case ["limit_conn", *_]:
                continue  # every client of the test has one address
            case ["http", *_]:
                kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
                line = "\n".join([line, *(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)])
            case ["server", address, "max_fails=0;"]:
                line = f"server 127.0.0.1:{instances[int(address[-1])]} max_fails=0;"
        kept.append(line)
    first_server = "    server {\n    }\n"
    return f"daemon off; pid {folder}/pid; worker_processes 1;\n" + "\n".join(kept).replace(first_server, "")


@contextlib.contextmanager
def nginx(folder: Path, instances: list[int]) -> Iterator[int]:
    """Its port."""
    port = free_port()
    (folder / "nginx.conf").write_text(adapted(folder, port, instances))
    command = [str(NGINX), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command) as process:
        yield port
        process.terminate()


def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"), "DRAIN_SECONDS": "0.5"}
    bearer = f"Bearer {make_token(make_user())}"
    stop = threading.Event()

    def ask_all_the_while(front: Server) -> list[int]:
        statuses = []
        while not stop.is_set():
            body = {"query": "a", "embedding": vector()}
            statuses.append(front.ask(f"{API}/memories/query", body, Authorization=bearer).status)
        return statuses

    instances = [start(**environment), start(**environment)]
    with ThreadPoolExecutor(4) as clients, nginx(tmp_path, [each.port for each in instances]) as port:
        try:
            for instance in instances:
                instance.wait_until_it_answers()
            front = Server(instances[0].process, port)
            front.wait_until_it_answers()
            asking = [clients.submit(ask_all_the_while, front) for _ in range(4)]
            for number, old in enumerate(instances):
                old.process.send_signal(signal.SIGTERM)
                assert old.process.wait(60) == 0
                instances[number] = start(old.port, **environment)
                instances[number].wait_until_it_answers()
            stop.set()
            statuses = [status for each in asking for status in each.result()]
        finally:
            stop.set()
            for instance in instances:
                instance.process.terminate()
                instance.process.wait(60)
    assert len(statuses) > 20
    assert set(statuses) == {200}, (tmp_path / "error.log").read_text()[-2000:]
