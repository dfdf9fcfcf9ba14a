"""Serving processes report themselves, and take themselves off the list when they are stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from keys.models import ProcessHeartbeat
from tests.children import child_environment

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = 60


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("server, processes", [("gunicorn", 2), ("uvicorn", 1)])
def test_a_server_that_is_stopped_is_off_the_list_at_once(
    server: str, processes: int, how: signal.Signals, tmp_path: Path
) -> None:
    with serving(server, tmp_path) as process:
        # The heartbeat begins while the application is loaded; a server takes signals from when it listens.
        wait_until(lambda: is_up(tmp_path, processes) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        os.kill(process.pid, how)
        process.wait(timeout=SECONDS)
    assert not ProcessHeartbeat.objects.exists(), (tmp_path / "log").read_text()


def is_up(folder: Path, processes: int) -> bool:
    return ProcessHeartbeat.objects.count() == processes and (folder / "socket").exists()


@contextmanager
def serving(server: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The project under a server of two workers (gunicorn) or one process (uvicorn), on a socket of its own."""
    environment = child_environment() | {
        "BIND": f"unix:{tmp_path}/socket",
        "WEB_CONCURRENCY": "2" if server == "gunicorn" else "1",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        "RERANK_ENABLED": "false",
    }
    options = {
        "gunicorn": ["-c", "project/gunicorn.py", "project.wsgi"],
        "uvicorn": ["project.asgi:application", "--uds", f"{tmp_path}/socket"],
    }
    command = [sys.executable, "-m", server, *options[server]]
    (tmp_path / "metrics").mkdir()
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, cwd=settings.BASE_DIR, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
