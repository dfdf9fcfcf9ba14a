"""A rotation that is killed at any of its steps, interrupted, or loses its database."""

import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from database import embedded_postgres
from keys import leases, nonces, steps
from keys.generation import generate_key
from keys.keyring import Key, parse_key
from keys.models import Lease, RotationRun
from keys.pace import Pace
from keys.rotation import rotate
from keys.status import key_report
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.rotation.encryption_key import EncryptionKeyMover
from tests.factories import stored_texts
from tests.memory.rotation.rotating import (
    all_blobs,
    assert_only_opens_with,
    key_ids,
    opens,
    promoted,
    store,
    store_all,
)

pytestmark = pytest.mark.django_db(transaction=True)

USERS = ("person:1", "person:2")
ROWS_EACH = 4
PACE = Pace(batch=3)
KILLED = 9


@pytest.fixture(autouse=True)
def _unobserved_and_unpaid() -> Iterator[None]:
    nonces.forget()
    yield
    steps.observer = None


@contextmanager
def stopping_at(number: int, how: BaseException | None = None) -> Iterator[list[str]]:
    """Within the block the `number`th step is the last: `how` is raised there, or the process dies without a word."""
    passed: list[str] = []

    def stop(step: str) -> None:
        passed.append(step)
        if len(passed) == number:
            if how is None:
                os._exit(KILLED)
            raise how

    steps.observer = stop
    try:
        yield passed
    finally:
        steps.observer = None


def rotate_and_die_at(number: int) -> int:
    """Rotate in a child process that is killed at a step; returns its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the pool's threads stay behind, and are not used
        child = os.fork()
    if child == 0:
        try:
            with stopping_at(number):
                rotate(EncryptionKeyMover(), started_by="a process that will be killed", pace=PACE)
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_every_step_it_finishes_when_run_again() -> None:
    for user_id in USERS:
        store(user_id, *range(ROWS_EACH))
    before = {user_id: stored_texts(user_id) for user_id in USERS}
    keys = [settings.MEMORY_ENCRYPTION_KEY, generate_key()]
    with rotating(keys) as (_, new):
        names = steps_of_a_rotation()
        assert_under(new)
    assert len(set(names)) >= 9, names
    for number, name in enumerate(names, start=1):
        keys.append(generate_key())
        with rotating(keys[-2:]) as (old, new):
            assert rotate_and_die_at(number) == KILLED, f"step {number}, {name}"
            states = set(RotationRun.objects.filter(to_key_id=new.key_id).values_list("state", flat=True))
            assert states <= {"running", "finished"}
            # What a person sees now: the old key must not go while a row names it.
            report = key_report()
            if not RotationRun.objects.filter(to_key_id=new.key_id, verified=True).exists():
                assert report.removable == [], f"step {number}, {name}"
            needed = old.key_id in key_ids()
            if needed:
                assert any(f"Keep {old.key_id}" in step for step in report.next_steps), f"step {number}, {name}"
            # Every blob opens, under one key or the other: nothing is half written.
            assert all(opens(old, *row) or opens(new, *row) for row in all_blobs())
            Lease.objects.all().delete()  # its 30 seconds are over
            if needed:  # until then it counts as a rotation that is under way
                assert key_report().attention, f"step {number}, {name}"
            assert rotate(EncryptionKeyMover(), started_by="test", pace=PACE).verified, f"step {number}, {name}"
            assert_under(new)
            assert {user_id: stored_texts(user_id) for user_id in USERS} == before
            assert key_report().removable == [old.key_id]


@contextmanager
def rotating(pair: list[str]) -> Iterator[tuple[Key, Key]]:
    old, new = pair
    with override_settings(MEMORY_ENCRYPTION_KEY=new, MEMORY_ENCRYPTION_KEYS_ACCEPTED=[old]):
        yield parse_key(old), parse_key(new)


def steps_of_a_rotation() -> list[str]:
    with stopping_at(-1) as passed:
        assert rotate(EncryptionKeyMover(), started_by="test", pace=PACE).verified
    return passed


def assert_under(new: Key) -> None:
    assert key_ids() == {new.key_id}
    assert all(opens(new, *row) for row in all_blobs())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_gives_the_lease_back_and_goes_on_where_it_stopped(error: type[BaseException]) -> None:
    store_all()
    with promoted() as (old, new):
        with stopping_at(30, error()) as passed, pytest.raises(error):
            rotate(EncryptionKeyMover(), started_by="test", pace=PACE)
        assert len(passed) == 30
        interrupted = RotationRun.objects.get()
        assert interrupted.state == "interrupted"
        assert not leases.is_held("rotation")
        finished = rotate(EncryptionKeyMover(), started_by="test", pace=PACE)
        assert (finished.pk, finished.verified) == (interrupted.pk, True)
        assert_only_opens_with(new, old)


def test_a_run_of_a_live_holder_is_not_taken_up() -> None:
    store_all()
    with promoted():
        assert rotate_and_die_at(12) == KILLED
        assert leases.is_held("rotation")
        with pytest.raises(leases.LeaseTaken):
            rotate(EncryptionKeyMover(), started_by="test", pace=PACE)


def test_the_database_restarted_in_the_middle(cluster_dir: str) -> None:
    store_all()
    with promoted() as (old, new):
        restarts = []

        def restart(step: str) -> None:
            if step == "rows locked" and len(restarts) < 2:
                restarts.append(step)
                embedded_postgres.stop(cluster_dir)
                embedded_postgres.ensure_running(cluster_dir, throwaway=True)

        steps.observer = restart
        finished = rotate(EncryptionKeyMover(), started_by="test", pace=PACE)
        assert len(restarts) == 2
        assert finished.verified
        assert_only_opens_with(new, old)


def test_sigterm_to_the_command_leaves_the_run_interrupted() -> None:
    store_all()
    before = signal.getsignal(signal.SIGTERM)
    with promoted():
        steps.observer = lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == "batch re-sealed" else None
        try:
            with pytest.raises(CommandError, match="Run it again") as caught:
                call_command("rotate_encryption_key", "--batch", "3")
        finally:
            signal.signal(signal.SIGTERM, before)
        assert caught.value.returncode == 130
        assert RotationRun.objects.get().state == "interrupted"
        steps.observer = None
        assert rotate(EncryptionKeyMover(), started_by="test").verified


def test_a_kill_in_the_middle_of_a_batch_leaves_no_row_half_sealed() -> None:
    store_all()
    with promoted() as (old, new):
        assert rotate_and_die_at(4) == KILLED
        with tenant_transaction("person:1"):
            for chunk in MemoryChunk.objects.all():
                key = new if chunk.enc_key_id == new.key_id else old
                for blob in (chunk.text_cipher, chunk.meta_cipher, chunk.emb_cipher):
                    assert opens(key, chunk.user_hash, bytes(blob))
