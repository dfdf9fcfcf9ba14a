"""An export: everything of one user as of one moment, in constant memory, and honest about how it ended."""

import json
import threading
from contextlib import closing
from typing import Any

import pytest
from django.db import connection, connections, transaction

from memory.erasure import delete_document, erase_user
from memory.exceptions import ExportBrokenOff, SecondTenant, TooManyExports
from memory.models import MemoryChunk
from memory.rls import tenant_snapshot, tenant_transaction
from memory.sealing.codecs import SealedBytes
from memory.tenancy.cursors import sending
from memory.tenancy.open_doors import open_door
from memory.tenancy.planner_settings import planner_settings
from memory.verbs import exporting
from memory.verbs.exporting import Export
from tests.factories import ALICE, BOB, remember, vector_of
from tests.memory.rotation.hmac_rotating import promoted
from tests.memory.waiting import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


def exported(user_id: str = ALICE, **options: Any) -> list[dict[str, Any]]:
    with closing(Export(user_id=user_id, **options)) as lines:
        return [json.loads(line) for line in lines]


def stored_texts(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(line["doc_id"], chunk["text"]) for line in lines if "stored" in line for chunk in line["stored"]]


def elsewhere(work: Any, **arguments: Any) -> None:
    """Do it in another thread, and so on another connection."""
    thread = threading.Thread(target=in_thread, args=[work], kwargs=arguments)
    thread.start()
    thread.join()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "ROWS_PER_BATCH", 2)


def test_every_document_is_a_line_between_the_first_and_the_last(small_batches: None) -> None:
    remember(ALICE, "b", "three", "four", "five", source="mail", metadata={"k": [1, None, {"x": "é"}]})
    remember(ALICE, "a", "one\ntwo", source="")
    remember(BOB, "c", "Bob's")
    first, *lines, last = exported()
    a, b = sorted(lines, key=lambda line: str(line["doc_id"]))
    assert first == {"export": {"version": 1, "model": "all-MiniLM-L6-v2", "header": 1}}
    assert last == {"export": {"complete": True, "documents": 2, "chunks": 4, "integrity_failures": 0}}
    assert (a["doc_id"], b["doc_id"]) == ("a", "b")
    assert [chunk["text"] for chunk in b["stored"]] == ["three", "four", "five"]
    chunk = b["stored"][1]
    with tenant_transaction(ALICE):
        row = MemoryChunk.objects.get(id=chunk["id"])
    assert chunk == {
        "id": str(row.id),
        "chunk_index": 1,
        "source": "mail",
        "text": "four",
        "metadata": {"k": [1, None, {"x": "é"}]},
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
    }


def test_embeddings_come_on_demand_and_exactly() -> None:
    remember(ALICE, "a", "one")
    _, line, _ = exported(embeddings=True)
    assert line["stored"][0]["embedding"] == vector_of("one").tolist()
    assert "embedding" not in exported()[1]["stored"][0]


def test_a_user_without_memories_exports_none() -> None:
    assert [list(line) for line in exported()] == [["export"], ["export"]]


def test_a_long_document_goes_over_several_lines(small_batches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MOST_CHUNKS", 2)
    ids = [str(chunk_id) for chunk_id in remember(ALICE, "long", *"abcde")]
    remember(ALICE, "short", "f")
    _, *lines, last = exported()
    lines.sort(key=lambda line: str(line["doc_id"]))  # those of a document stay in their order
    assert [line.get("after") for line in lines] == [None, ids[1], ids[3], None]
    assert [[chunk["id"] for chunk in line["stored"]] for line in lines[:3]] == [ids[:2], ids[2:4], ids[4:]]
    assert (last["export"]["documents"], last["export"]["chunks"]) == (2, 6)


def test_a_batch_holds_no_more_bytes_than_it_may_and_one_row_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "BYTES_PER_BATCH", 2_500)
    remember(ALICE, "doc", *(str(number) + "x" * size for number, size in enumerate([1_000, 1_000, 400, 9_000, 10])))
    fetched: list[int] = []
    real = exporting.StoredRow
    monkeypatch.setattr(exporting, "StoredRow", lambda *row: fetched.append(row[3]) or real(*row))
    lines = exporting.Export(user_id=ALICE)
    with closing(lines):
        next(lines)
        first = json.loads(next(lines))
        assert ([chunk["chunk_index"] for chunk in first["stored"]], fetched) == ([0, 1, 2], [0, 1, 2, 3])
        assert [len(json.loads(line).get("stored", [])) for line in lines] == [1, 1, 0]


def test_chunks_that_do_not_open_are_left_out_and_counted() -> None:
    _, bad, _ = remember(ALICE, "doc", "one", "two", "three")
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(id=bad).update(text_cipher=SealedBytes(b"x" * 40))
    *lines, last = exported()
    assert stored_texts(lines) == [("doc", "one"), ("doc", "three")]
    assert last["export"]["integrity_failures"] == 1


# --- One moment ------------------------------------------------------------------------------------------------------
def test_writers_beside_change_nothing_of_it(small_batches: None) -> None:
    for number in range(6):
        remember(ALICE, f"doc-{number}", f"text {number}")
    before = stored_texts(exported())
    with closing(Export(user_id=ALICE)) as lines:
        seen = [json.loads(next(lines)), json.loads(next(lines))]
        elsewhere(lambda: remember(ALICE, "doc-3", "replaced"))
        elsewhere(lambda: remember(ALICE, "doc-9", "new"))
        elsewhere(delete_document, user_id=ALICE, doc_id="doc-5")
        seen += map(json.loads, lines)
    assert stored_texts(seen) == before
    assert stored_texts(exported()) != before


def test_an_erasure_beside_waits_for_nothing_and_the_export_ends_as_it_began(small_batches: None) -> None:
    for number in range(6):
        remember(ALICE, f"doc-{number}", f"text {number}")
    with promoted(), closing(Export(user_id=ALICE)) as lines:
        first = next(lines)
        elsewhere(erase_user, user_id=ALICE)
        assert len(stored_texts([json.loads(line) for line in (first, *lines)])) == 6
    assert stored_texts(exported()) == []


def test_while_several_hmac_keys_are_accepted_the_user_is_found() -> None:
    remember(ALICE, "doc", "under the old key")
    with promoted():
        remember(BOB, "doc", "under the new key")
        assert stored_texts(exported(ALICE)) == [("doc", "under the old key")]
        assert stored_texts(exported(BOB)) == [("doc", "under the new key")]


# --- How it ends -----------------------------------------------------------------------------------------------------
def test_a_client_that_goes_away_ends_the_transaction(small_batches: None) -> None:
    for number in range(6):
        remember(ALICE, f"doc-{number}", f"text {number}")
    with closing(Export(user_id=ALICE)) as lines:
        assert len([next(lines), next(lines)]) == 2
        assert connection.in_atomic_block and open_door(connections["default"])
    assert not connection.in_atomic_block and open_door(connections["default"]) is None
    assert exporting._running == 0
    assert len(stored_texts(exported())) == 6


def test_one_that_nobody_reads_leaves_nothing_behind() -> None:
    lines = Export(user_id=ALICE)
    assert exporting._running == 1 and not connection.in_atomic_block
    del lines
    assert exporting._running == 0


def test_few_are_made_at_a_time(settings: Any) -> None:
    settings.MEMORY_EXPORT_CONCURRENT = 1
    with closing(Export(user_id=ALICE)), pytest.raises(TooManyExports):
        Export(user_id=ALICE)
    exported()


def test_the_server_ends_one_that_takes_too_long(settings: Any, small_batches: None) -> None:
    settings.MEMORY_EXPORT_SECONDS = 0.2
    for number in range(6):
        remember(ALICE, f"doc-{number}", f"text {number}")
    with closing(Export(user_id=ALICE)) as lines:
        next(lines)
        elsewhere(wait_until_nobody_is_in_a_transaction)
        with pytest.raises(ExportBrokenOff):
            list(lines)
    assert exporting._running == 0
    settings.MEMORY_EXPORT_SECONDS = 0
    assert len(stored_texts(exported())) == 6


def wait_until_nobody_is_in_a_transaction() -> None:
    with connection.cursor() as cursor:
        for _ in range(1000):
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'")
            if cursor.fetchone() == (0,):
                return
            cursor.execute("SELECT pg_sleep(0.01)")
    raise AssertionError("The transaction goes on.")


def test_one_that_the_database_ends_breaks_off_without_its_last_line(small_batches: None) -> None:
    for number in range(6):
        remember(ALICE, f"doc-{number}", f"text {number}")
    with closing(Export(user_id=ALICE)) as lines:
        next(lines)
        connection.connection.close()
        with pytest.raises(ExportBrokenOff):
            list(lines)
    assert exporting._running == 0


# --- The door --------------------------------------------------------------------------------------------------------
def test_a_snapshot_is_read_only_and_nobodys_elses_transaction() -> None:
    remember(ALICE, "doc", "hello")
    with tenant_snapshot(ALICE, seconds=60), connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("repeatable read",)
        cursor.execute("SHOW transaction_timeout")
        assert cursor.fetchone() == ("1min",)
        with pytest.raises(Exception, match="read-only"), transaction.atomic():
            cursor.execute("DELETE FROM memory_chunks")
        with pytest.raises(SecondTenant), tenant_transaction(BOB):
            pass
    inside = tenant_transaction(ALICE), pytest.raises(transaction.TransactionManagementError)
    with inside[0], inside[1], tenant_snapshot(ALICE, seconds=60):
        pass
    with connection.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == ("read committed",)


def test_rows_are_read_along_the_documents_places() -> None:
    remember(ALICE, "doc", "one", "two")
    start = {"embeddings": True, "rows": 200, "bytes": 9, "doc_id": "", "chunk_index": -1}
    pins = exporting.ALONG_THE_DOCUMENTS
    with (
        tenant_snapshot(ALICE, seconds=60) as user_hash,
        sending() as send,
        planner_settings(send, pins, restore=False),
    ):
        rows = send(f"EXPLAIN {exporting.NEXT_ROWS}", {"user_hash": user_hash, **start}).fetchall()
    plan = "\n".join(line for (line,) in rows)
    assert "Index Scan using memory_chunks_document" in plan
    assert "Sort" not in plan and "Seq Scan" not in plan, plan
