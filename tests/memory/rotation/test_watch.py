"""`rotate_encryption_key --watch`, as the operator's worker runs it: a process that waits for requests."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keys.models import Purpose, RotationRun
from keys.runs import request_rotation
from tests.children import child_environment
from tests.memory.rotation.rotating import assert_all_readable, assert_only_opens_with, key_ids, promoted, store_all

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 60


@pytest.mark.django_db(transaction=True)
def test_a_requested_rotation_is_picked_up_finished_and_the_worker_stops_on_sigterm() -> None:
    store_all()
    with promoted() as (old, new):
        command = [sys.executable, "-u", "manage.py", "rotate_encryption_key", "--watch"]
        with subprocess.Popen(
            command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as worker:
            assert worker.stdout and "Waiting for requested rotations" in worker.stdout.readline()
            assert key_ids() == {old.key_id}
            request_rotation(Purpose.ENCRYPTION, requested_by="root")
            finished = _wait_until_finished()
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=PATIENCE_SECONDS) == 130
        assert finished.verified and finished.requested_by == "root" and finished.started_by
        assert key_ids() == {new.key_id}
        assert_only_opens_with(new, old)
        assert_all_readable()


def _wait_until_finished() -> RotationRun:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        run = RotationRun.objects.get()
        if run.state == RotationRun.State.FINISHED:
            return run
        time.sleep(0.1)
    raise AssertionError(f"The rotation is {run.state}: {run.message}")
