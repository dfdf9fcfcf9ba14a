"""The seals of all processes, added up in the database without a second connection."""

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from database.roles import connect_as, wrapper
from keys import nonce_budget, nonces
from keys.checks import check_nonce_budget
from keys.exceptions import NonceBudgetSpent
from keys.keyring import get_keyring
from keys.models import KeyRecord
from memory.indexing import index_documents, index_memory_chunk
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.security import seal
from project import startup
from tests.factories import document, vector

KEY = "0badf00d"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _never_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonce_budget, "_failed_at", float("-inf"))


def told(key_id: str = "") -> int:
    record = KeyRecord.objects.filter(key_id=key_id or get_keyring().sealing.key_id).first()
    return record.seals if record else 0


def seal_in_door(times: int) -> None:
    with tenant_transaction("person:1"):
        for _ in range(times):
            seal(b"text")


def test_a_transaction_that_sealed_is_settled_right_behind_its_commit() -> None:
    seal_in_door(5)
    assert told() == 5 + nonces.AHEAD


def test_what_was_told_ahead_is_used_before_the_row_is_touched_again() -> None:
    seal_in_door(1)
    with CaptureQueriesContext(connection) as queries:
        seal_in_door(nonces.AHEAD // 2 - 1)
    assert not [query for query in queries if "keys_keyrecord" in query["sql"]]
    seal_in_door(nonces.AHEAD * 2)
    assert told() == nonces.AHEAD // 2 + nonces.AHEAD * 3


def test_a_serving_process_knows_of_a_spent_key_before_it_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    for background in ("heartbeat.start", "begin_reranking"):
        monkeypatch.setattr(f"project.startup.{background}", lambda *arguments: None)
    KeyRecord.objects.create(key_id=get_keyring().sealing.key_id, purpose="encryption", seals=nonces.REFUSE_AT)
    startup.begin_serving("wsgi")
    with pytest.raises(NonceBudgetSpent):
        seal(b"text")


def test_reading_settles_nothing() -> None:
    with tenant_transaction("person:1"):
        assert not MemoryChunk.objects.exists()
    assert told() == 0


def test_a_rollback_does_not_uncount_a_seal() -> None:
    with pytest.raises(RuntimeError), tenant_transaction("person:1"):
        seal(b"text")
        raise RuntimeError
    with tenant_transaction("person:1"):
        assert told() == 1 + nonces.AHEAD


def test_inside_somebody_elses_transaction_it_waits_for_the_commit() -> None:
    with transaction.atomic():
        seal_in_door(5)
        assert told() == 0
    assert told() == 5 + nonces.AHEAD


def test_somebody_elses_rollback_is_settled_by_the_next_door() -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        seal_in_door(5)
        raise RuntimeError
    seal_in_door(1)
    nonce_budget.settle()
    assert told() == 6 + nonces.AHEAD


def test_threads_count_exactly() -> None:
    threads = [threading.Thread(target=_seal_and_close, args=(700,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    nonce_budget.settle()
    assert told() == 4 * 700 + nonces.AHEAD


def _seal_and_close(times: int) -> None:
    try:
        seal_in_door(times)
    finally:
        connection.close()


def test_an_async_write_is_settled_over_its_own_connection() -> None:
    async def store() -> None:
        async with await wrapper().connect_async() as conn:
            await index_memory_chunk(conn, "person:1", "doc", "chat", "text", vector(), {})

    async_to_sync(store)()
    assert told() >= nonces.AHEAD
    nonce_budget.settle()
    assert told() > nonces.AHEAD


def test_a_spent_key_stores_nothing_and_names_the_command() -> None:
    KeyRecord.objects.create(key_id=get_keyring().sealing.key_id, purpose="encryption", seals=nonces.REFUSE_AT)
    for _ in range(2):
        with pytest.raises(NonceBudgetSpent, match="rotate_encryption_key"):
            index_documents(user_id="person:1", documents=[document("doc", "text")])
    with tenant_transaction("person:1"):
        assert not MemoryChunk.objects.exists()


def test_an_async_write_under_a_spent_key_is_refused() -> None:
    async def store() -> None:
        async with await wrapper().connect_async() as conn:
            await index_memory_chunk(conn, "person:1", "doc", "chat", "text", vector(), {})

    KeyRecord.objects.create(key_id=get_keyring().sealing.key_id, purpose="encryption", seals=nonces.REFUSE_AT)
    with pytest.raises(NonceBudgetSpent):
        async_to_sync(store)()


def test_the_last_values_are_sealed() -> None:
    KeyRecord.objects.create(key_id=KEY, purpose="encryption", seals=nonces.REFUSE_AT - nonces.AHEAD)
    nonces.open_account(KEY)
    nonce_budget.settle()
    nonces.spend(KEY)
    nonce_budget.settle()
    with pytest.raises(NonceBudgetSpent):
        nonces.spend(KEY)
    assert nonces.REFUSE_AT + 2**20 <= 2**32


@pytest.fixture
def held_row() -> Iterator[Any]:
    """Somebody's transaction that holds the counter's row."""
    KeyRecord.objects.create(key_id=get_keyring().sealing.key_id, purpose="encryption")
    with connect_as("app") as other:
        other.execute("UPDATE keys_keyrecord SET seals = 0")
        yield other


def test_a_row_that_somebody_holds_holds_up_no_write_and_is_told_later(
    held_row: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nonce_budget, "LOCK_TIMEOUT", "SET LOCAL lock_timeout = '10ms'")
    with caplog.at_level(logging.WARNING):
        seal_in_door(3)
        seal_in_door(3)
    assert caplog.text.count("not counted yet") == 1  # the pauses between attempts are counted in seconds
    held_row.rollback()
    monkeypatch.setattr(nonce_budget, "_failed_at", float("-inf"))
    seal_in_door(0)
    assert told() == 6 + nonces.AHEAD


def test_sealing_again_under_a_retired_key_calls_it_back() -> None:
    KeyRecord.objects.create(key_id=KEY, purpose="encryption", retired_at="2026-01-01T00:00:00Z")
    nonces.spend(KEY)
    nonce_budget.settle()
    assert KeyRecord.objects.get(key_id=KEY).retired_at is None


def test_the_system_check_warns_at_half_the_budget() -> None:
    key_id = get_keyring().sealing.key_id
    KeyRecord.objects.create(key_id=key_id, purpose="encryption", seals=nonces.WARN_AT - 1)
    assert check_nonce_budget(databases=["default"]) == []
    KeyRecord.objects.update(seals=nonces.WARN_AT)
    (warning,) = check_nonce_budget(databases=["default"])
    assert (warning.id, key_id in warning.msg) == ("keys.W001", True)
    assert check_nonce_budget() == []
