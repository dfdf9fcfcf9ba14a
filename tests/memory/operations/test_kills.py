"""A worker killed at any step: every accepted document is stored exactly once, or reported failed."""

import pytest

from memory.models import MemoryChunk, MemoryVector, Tenant
from memory.operations.execution import MOST_ATTEMPTS
from memory.rls import tenant_transaction
from memory.rotation.integrity import inspect_all
from tests.children import KILLED, die_in_a_child
from tests.factories import ALICE
from tests.memory.operations.queued import let_time_run_out, observed, operation, queue_call, stored, work

pytestmark = pytest.mark.django_db(transaction=True)

STEPS = ["call claimed", "portion embedded", "call stored", "call done"]
BEFORE = [("doc", "old")]
AFTER = [("doc", "one"), ("doc", "two")]


def assert_whole(documents: list[tuple[str, str]]) -> None:
    assert stored() == documents
    with tenant_transaction(ALICE):
        assert MemoryVector.objects.count() == MemoryChunk.objects.count() == len(documents)
        assert Tenant.objects.get().chunk_count == len(documents)
    assert inspect_all().findings == []


def test_the_steps_are_all_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []
    queue_call("doc", "one", "two")
    with observed(passed.append):
        work()
    assert passed == STEPS


@pytest.mark.parametrize("number", range(1, len(STEPS) + 1), ids=STEPS)
def test_killed_at_a_step_the_next_worker_stores_it_once(number: int) -> None:
    queue_call("doc", "old")
    work()
    call = queue_call("doc", "one", "two")
    assert die_in_a_child(work, number) == KILLED
    is_done = STEPS[number - 1] == "call done"
    assert_whole(AFTER if is_done else BEFORE)
    assert work() == 0  # the dead one's minute is not over
    let_time_run_out()
    assert work() == int(not is_done)
    assert operation(call).status == "succeeded"
    assert_whole(AFTER)


def test_killed_while_it_is_accepted_it_is_not_there_and_afterwards_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert die_in_a_child(lambda: queue_call("doc", "one", "two"), 1) == KILLED
    assert work() == 1
    assert_whole(AFTER)


def test_what_kills_every_worker_is_reported_failed_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    call, behind = queue_call("doc", "one"), queue_call("next", "two")
    for _ in range(MOST_ATTEMPTS):
        assert die_in_a_child(work, 2) == KILLED
        let_time_run_out()
    work()
    assert operation(call).status == "failed"
    assert operation(behind).status == "succeeded"
    assert_whole([("next", "two")])
