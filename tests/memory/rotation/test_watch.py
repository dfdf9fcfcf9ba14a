"""`rotate_encryption_key --watch`, as the operator's worker runs it: a process that waits for requests."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from database import embedded_postgres
from keys.models import Purpose, RotationRun
from keys.retry_while_away import retry_while_away
from keys.runs import request_rotation
from tests.children import child_environment
from tests.memory.rotation.rotating import assert_all_readable, assert_only_opens_with, key_ids, promoted, store_all

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60


@pytest.mark.django_db(transaction=True)
def test_a_requested_rotation_is_picked_up_finished_and_the_worker_stops_on_sigterm() -> None:
    store_all()
    with promoted() as (old, new), watching() as worker:
        assert key_ids() == {old.key_id}
        request_rotation(Purpose.ENCRYPTION, requested_by="root")
        finished = _wait_until_finished()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=PATIENCE_SECONDS) == 130
        assert finished.verified and finished.requested_by == "root" and finished.started_by
        assert key_ids() == {new.key_id}
        assert_only_opens_with(new, old)
        assert_all_readable()


@pytest.mark.django_db(transaction=True)
def test_the_worker_outlives_a_restart_of_the_database(cluster_dir: str) -> None:
    store_all()
    with promoted() as (_, new), watching() as worker:
        request_rotation(Purpose.ENCRYPTION, requested_by="root")
        assert _wait_until_finished().verified  # by now it has a connection to lose
        embedded_postgres.stop(cluster_dir)
        embedded_postgres.ensure_running(cluster_dir, throwaway=True)
        retry_while_away(request_rotation, Purpose.ENCRYPTION, requested_by="root")
        assert _wait_until_finished().verified
        assert worker.poll() is None
        assert key_ids() == {new.key_id}


@contextmanager
def watching() -> Iterator[subprocess.Popen[str]]:
    """A worker that waits for requests."""
    command = [sys.executable, "-u", "manage.py", "rotate_encryption_key", "--watch"]
    with subprocess.Popen(
        command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as worker:
        try:
            assert worker.stdout and "Waiting for requested rotations" in worker.stdout.readline()
            yield worker
        finally:
            worker.kill()


def _wait_until_finished() -> RotationRun:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        run = RotationRun.objects.first()
        if run.state == RotationRun.State.FINISHED:
            return run
        time.sleep(0.1)
    raise AssertionError(f"The rotation is {run.state}: {run.message}")
