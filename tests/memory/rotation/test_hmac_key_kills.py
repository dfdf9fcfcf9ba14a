"""An HMAC rotation that is killed at any of its steps: nothing is lost, everybody is served, the next run finishes."""

import os
import warnings

import pytest

from keys import steps
from keys.generation import generate_key
from keys.models import Lease, RotationRun
from keys.pace import Pace
from keys.rotation import rotate
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.rotation.hmac_key import HMACKeyMover
from tests.factories import remember
from tests.memory.rotation.hmac_rotating import (
    BATCH,
    LARGE,
    MEMORIES,
    SMALL,
    assert_all_moved,
    assert_served,
    facts,
    observing,
    promoted,
    store_all,
    tenant_facts,
)

pytestmark = pytest.mark.django_db(transaction=True)

KILLED = 9
STEPS = {
    "run taken up", "user ids checked",
    "small tenant's rows read",
    "small tenant's old rows deleted", "small tenant's new rows inserted", "tenant row moved", "small tenant moved",
    "partial copy cleared", "window copied", "window caught up", "caught up", "last changes copied",
    "large tenant flipped", "orphans cleared", "tenant moved", "tenant done", "moving pass ended",
    "killed runs cleaned up", "tenant verified", "verifying pass ended", "old keys retired",
    "run ended", "lease given back",
}  # fmt: skip


def change_what_was_copied() -> None:
    """The oldest document of the large tenant is replaced by the same, so that there is something to catch up with."""
    with tenant_transaction(LARGE):
        oldest = MemoryChunk.objects.order_by("id")[0]
        text, metadata = oldest.text, oldest.metadata  # type: ignore[attr-defined]
    remember(LARGE, oldest.doc_id, text, metadata=metadata)


def rotate_and_die_at(number: int) -> int:
    """Rotate in a child process that is killed at a step; returns its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the pool's threads stay behind, and are not used
        child = os.fork()
    if child == 0:
        try:
            passed: list[str] = []

            def die(step: str) -> None:
                passed.append(step)
                if len(passed) == number:
                    os._exit(KILLED)
                if passed.count("window copied") == 1 and step == "window copied":
                    change_what_was_copied()

            steps.observer = die
            rotate(HMACKeyMover(), started_by="a process that will be killed", pace=Pace(batch=BATCH))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_every_step_it_serves_everybody_and_finishes_when_run_again() -> None:
    store_all()
    keys = [generate_key()]
    with promoted(keys[0]):
        rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=BATCH))
    passed: list[str] = []

    def note(step: str) -> None:
        passed.append(step)
        if passed.count("window copied") == 1 and step == "window copied":
            change_what_was_copied()

    keys.append(generate_key())
    with promoted(keys[1], keys[0]), observing(note):
        assert rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=BATCH)).verified
    assert set(passed) == STEPS
    for number, name in enumerate(passed, start=1):
        keys.append(generate_key())
        with promoted(keys[-1], keys[-2]):
            before = {user_id: tenant_facts(user_id) for user_id in MEMORIES}
            small = facts(SMALL)
            assert rotate_and_die_at(number) == KILLED, f"step {number}, {name}"
            for user_id in MEMORIES:
                assert_served(user_id)
            assert {user_id: tenant_facts(user_id) for user_id in MEMORIES} == before, f"step {number}, {name}"
            Lease.objects.all().delete()  # its 30 seconds are over
            finished = rotate(HMACKeyMover(), started_by="test", pace=Pace(batch=BATCH))
            assert finished.verified, f"step {number}, {name}: {finished.failures}"
            assert_all_moved()
            for user_id in MEMORIES:
                assert_served(user_id)
            assert facts(SMALL) == small
    assert RotationRun.objects.exclude(state="finished").count() == 0
