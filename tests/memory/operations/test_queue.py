"""Accepted calls: sealed, in their user's order, bounded, one at a time, and whoever lost one changes nothing."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from pytest_django import Settings

from memory.erasure import erase_user
from memory.exceptions import EmbeddingModelUnavailable, OperationNotFound, QueueFull, TooManyOperations
from memory.models import MemoryOperation, Tenant
from memory.operations import due, execution, queue
from memory.operations.execution import MOST_ATTEMPTS, Outcome, execute
from memory.operations.worker import Worker
from memory.rls import tenant_transaction
from memory.security import hmac_user, open_sealed
from tests.factories import ALICE, BOB
from tests.memory.operations.queued import (
    body,
    dumped,
    forget_the_total,
    let_time_run_out,
    operation,
    queue_call,
    stored,
    work,
)

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_call_is_done_later_and_answers_what_it_would_have_answered() -> None:
    first = queue_call("doc", "one", "two")
    assert stored() == []
    assert (operation(first).status, operation(first).chunks_total) == ("pending", None)
    assert work() == 1
    done = operation(first)
    assert (done.status, done.chunks_done, done.chunks_total, done.problem) == ("succeeded", 2, 2, None)
    assert done.result and done.started_at and done.finished_at
    (answer,) = done.result["documents"]
    assert (answer["doc_id"], answer["replaced"], len(answer["chunk_ids"])) == ("doc", 0, 2)
    assert stored() == [("doc", "one"), ("doc", "two")]


def test_a_dump_shows_nothing_of_it_and_the_payload_goes_with_the_answer() -> None:
    queue_call("PLANTED", "PLANTED text")
    ((user_hash, state, payload, result, _),) = dumped()
    assert (state, result) == ("pending", None)
    assert b"PLANTED" not in payload
    assert b"PLANTED text" in open_sealed(payload, user_hash.encode())
    work()
    ((_, state, payload, result, _),) = dumped()
    assert (state, payload) == ("succeeded", None)
    assert b"PLANTED" not in result


def test_another_users_call_is_not_there() -> None:
    mine = queue_call("doc", "one")
    with pytest.raises(OperationNotFound):
        operation(mine, BOB)


def test_calls_of_one_user_are_done_in_order_and_one_at_a_time() -> None:
    queue_call("doc", "first")
    second = queue_call("doc", "second")
    held = queue.claim(hmac_user(ALICE))
    assert held
    assert queue.claim(hmac_user(ALICE)) is None
    assert due.due_users() == []
    execute(held)
    assert operation(second).status == "pending"
    work()
    assert stored() == [("doc", "second")]


def test_a_user_with_many_calls_and_one_with_a_single_one_take_turns() -> None:
    many = [queue_call(f"doc-{number}", "text") for number in range(3)]
    one = queue_call("doc", "text", user_id=BOB)
    assert Worker().run_due() == 2
    assert operation(one, BOB).status == "succeeded"
    assert [operation(each).status for each in many] == ["succeeded", "pending", "pending"]
    turns = due.due_users(after=hmac_user(ALICE))
    queue_call("doc", "again", user_id=BOB)
    assert sorted(due.due_users(after=turns[0])) == sorted([hmac_user(ALICE), hmac_user(BOB)])
    assert due.due_users(after=hmac_user(BOB))[0] == hmac_user(ALICE)
    assert due.due_users(after=hmac_user(ALICE))[0] == hmac_user(BOB)


def test_a_worker_that_lost_its_call_stores_nothing() -> None:
    """Its minute was over (or a clock jumped): another one has the call. The slow one comes back, twice too late."""
    call = queue_call("doc", "one")
    slow = queue.claim(hmac_user(ALICE))
    let_time_run_out()
    quick = queue.claim(hmac_user(ALICE))
    assert slow and quick and quick.attempts == 2
    assert execute(slow) == Outcome.TAKEN_OVER
    assert stored() == []
    assert execute(quick) == Outcome.SUCCEEDED
    assert execute(slow) == Outcome.TAKEN_OVER
    assert len(stored()) == 1
    assert operation(call).status == "succeeded"


def test_bounded_for_a_user_and_for_all(settings: Settings) -> None:
    settings.MEMORY_OPERATIONS_PER_USER, settings.MEMORY_OPERATIONS_TOTAL = 2, 3
    queue_call("a", "text")
    queue_call("b", "text")
    with pytest.raises(TooManyOperations):
        queue_call("c", "text")
    queue_call("a", "text", user_id=BOB)
    with pytest.raises(QueueFull):
        queue_call("b", "text", user_id=BOB)
    work()
    queue_call("c", "text")
    assert len(dumped()) == 4


def test_the_total_is_looked_up_once_a_second() -> None:
    forget_the_total()
    assert due.unfinished() == 0
    queue.accept(user_id=ALICE, body=body("doc", "one"))
    assert due.unfinished() == 0
    forget_the_total()
    assert due.unfinished() == 1


def test_what_is_the_calls_own_fault_fails_with_the_synchronous_answer(settings: Settings) -> None:
    too_large = queue_call("doc", "one", "two")
    settings.MEMORY_MAX_CHUNKS = 1
    work()
    failed = operation(too_large)
    assert (failed.status, failed.result) == ("failed", None)
    assert failed.problem
    assert (failed.problem["status"], failed.problem["errors"][0]["field"]) == (413, "chunks")
    assert stored() == []


@pytest.mark.parametrize("away", [EmbeddingModelUnavailable("away"), OperationalError("away")])
def test_what_passes_by_itself_is_waited_for(monkeypatch: pytest.MonkeyPatch, away: Exception) -> None:
    def is_away(**kwargs: Any) -> None:
        raise away

    call = queue_call("doc", "one")
    with monkeypatch.context() as patched:
        patched.setattr(execution, "index_documents", is_away)
        for _ in range(MOST_ATTEMPTS + 2):
            assert work() == 1
            assert work() == 0  # it is put off
            let_time_run_out()
    assert operation(call).status == "pending"
    work()
    assert operation(call).status == "succeeded"


def test_what_nobody_expected_is_tried_a_few_times_and_then_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(**kwargs: Any) -> None:
        raise KeyError("PLANTED")

    call, behind = queue_call("doc", "one"), queue_call("next", "two")
    with monkeypatch.context() as patched:
        patched.setattr(execution, "index_documents", breaks)
        for _ in range(MOST_ATTEMPTS):
            assert work() == 1
            assert operation(call).status == "pending"
            let_time_run_out()
        patched.undo()
        work()
    failed = operation(call)
    assert failed.status == "failed" and failed.problem
    assert failed.problem["status"] == 500
    assert "PLANTED" not in str(failed.problem)
    assert operation(behind).status == "succeeded"


def test_a_payload_that_does_not_open_fails_and_the_next_goes_on() -> None:
    call, behind = queue_call("doc", "one"), queue_call("next", "two")
    with tenant_transaction(ALICE):
        row = MemoryOperation.objects.get(id=call)
        tampered = type(row.payload_cipher)(bytes([row.payload_cipher[0] ^ 1]) + row.payload_cipher[1:])
        MemoryOperation.objects.filter(id=call).update(payload_cipher=tampered)
    work()
    failed = operation(call)
    assert failed.problem and failed.problem["type"] == "urn:sealed-memory:integrity-failure"
    assert operation(behind).status == "succeeded"


def test_a_worker_that_is_stopped_hands_its_call_back_at_the_next_portion() -> None:
    call = queue_call("doc", "one")
    claimed = queue.claim(hmac_user(ALICE))
    assert claimed
    assert execute(claimed, should_stop=lambda: True) == Outcome.HANDED_BACK
    assert (operation(call).status, stored()) == ("pending", [])
    with tenant_transaction(ALICE):
        assert MemoryOperation.objects.get().attempts == 0
    assert work() == 1  # at once, by whoever else is there
    assert operation(call).status == "succeeded"


def test_an_erasure_erases_the_queue_and_what_is_under_way_stores_nothing() -> None:
    queue_call("doc", "one")
    claimed = queue.claim(hmac_user(ALICE))
    assert claimed
    receipt = erase_user(user_id=ALICE)
    assert (receipt.deleted["memory_operations"], receipt.remaining["memory_operations"]) == (1, 0)
    assert execute(claimed) == Outcome.TAKEN_OVER
    assert stored() == []
    with tenant_transaction(ALICE):
        assert not Tenant.objects.exists()


def test_an_erasure_just_before_the_end_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    queue_call("doc", "one")
    claimed = queue.claim(hmac_user(ALICE))
    assert claimed
    real = execution.queue.follow

    def erased_meanwhile(*args: Any) -> None:
        real(*args)
        erase_user(user_id=ALICE)

    monkeypatch.setattr(execution.queue, "follow", erased_meanwhile)
    assert execute(claimed) == Outcome.TAKEN_OVER
    assert stored() == []
    with tenant_transaction(ALICE):
        assert not Tenant.objects.exists()


def test_finished_calls_are_purged_after_their_time(settings: Settings) -> None:
    old, new = queue_call("a", "text"), queue_call("b", "text")
    work()
    waiting = queue_call("c", "text")
    with tenant_transaction(ALICE):
        finished = MemoryOperation.objects.get(id=old)
        MemoryOperation.objects.filter(id=old).update(
            finished_at=finished.finished_at - timedelta(hours=settings.MEMORY_OPERATION_KEEP_HOURS, seconds=1)  # type: ignore[operator]
        )
    assert queue.purge() == 1
    assert operation(new).status == "succeeded"
    assert operation(waiting).status == "pending"
    with pytest.raises(OperationNotFound):
        operation(old)
