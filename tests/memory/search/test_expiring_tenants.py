"""Only tenants with rows that may expire are asked whether a row has: the others' scans never read that column."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest
from django.db import connection, connections

from memory.documents.document import Chunk, Document
from memory.documents.patches import Patch
from memory.erasure import erase_user
from memory.importing import import_lines
from memory.index import rows, saved_chunks
from memory.index.rows import PlainChunk, build_rows
from memory.indexing import index_documents
from memory.models import MemoryChunk, Tenant
from memory.rls import set_rls_context, tenant_transaction
from memory.rotation.integrity import inspect_all
from memory.search import candidates
from memory.search.candidates import best_candidates
from memory.search.exact_scan import PINS
from memory.search.search_parameters import SearchParameters, Weights, search_parameters
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor, register_vectors_async, sending
from memory.tenancy.row_set import RowSetChange
from memory.verbs.exporting import Export
from memory.verbs.patching import patch_chunk, patch_document
from tests.factories import ALICE, BOB, recall, remember, texts, vector, vector_of

pytestmark = pytest.mark.django_db(transaction=True)

PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
HYBRID, BY_VECTOR = Weights(), Weights(lexical=0, neighbour=0)
READS_EXPIRY = "v.expires_at"


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_states", {})
    monkeypatch.setattr(
        saved_chunks, "embed_passages", lambda passages: np.stack([vector_of(text) for text in passages])
    )


def expiring(user_id: str = ALICE) -> bool:
    with tenant_transaction(user_id):
        return bool(Tenant.objects.get().expiring)


def scans(user_id: str = ALICE, weights: Weights = HYBRID) -> list[str]:
    """The SQL of the exact scans that a search sends."""
    sent: list[str] = []
    with tenant_transaction(user_id, planner=PINS) as user_hash, sending() as send:

        def noting(sql: str, parameters: Any = ()) -> psycopg.Cursor[Any]:
            sent.append(sql)
            return send(sql, parameters)

        def parameters_for(recipe: Any) -> SearchParameters:
            query = {"vector": np.asarray(vector(), np.float32), "query": "apollo", "limit": 5}
            return search_parameters(user_hash, recipe=recipe, weights=weights, **query)  # type: ignore[arg-type]

        assert best_candidates(noting, user_hash, parameters_for)
    return [sql for sql in sent if "memory_vectors" in sql]


@pytest.mark.parametrize("weights", [HYBRID, BY_VECTOR], ids=["hybrid", "by vector"])
def test_only_the_scan_of_a_tenant_whose_rows_may_expire_reads_when(weights: Weights) -> None:
    remember(ALICE, "doc", "apollo")
    for _ in range(2):  # by the state that was read, and by the one that is remembered
        (scan,) = scans(weights=weights)
        assert READS_EXPIRY not in scan
    index_documents(user_id=ALICE, documents=[Document("ends", "", (Chunk("a", vector()),), expires_at=FUTURE)])
    refused, scan = scans(weights=weights)
    assert READS_EXPIRY not in refused and READS_EXPIRY in scan
    (scan,) = scans(weights=weights)
    assert READS_EXPIRY in scan


def test_a_row_that_is_committed_between_the_state_and_the_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scan itself tells that it was sent without the condition."""
    remember(ALICE, "doc", "apollo")
    states = candidates.tenant_state

    def overtaken(send: Any, user_hash: str) -> Any:
        state = states(send, user_hash)
        monkeypatch.setattr(candidates, "tenant_state", states)
        with tenant_transaction(ALICE), binary_cursor() as cursor:
            cursor.execute(*tenant_row.mark_expiring(user_hash))
        return state

    monkeypatch.setattr(candidates, "tenant_state", overtaken)
    refused, scan = scans()
    assert READS_EXPIRY not in refused and READS_EXPIRY in scan


# --- Every writer tells ----------------------------------------------------------------------------------------------
def gone() -> Document:
    return Document("gone", "", (Chunk("gone", vector_of("gone")),), expires_at=PAST)


def stored() -> Any:
    return remember(ALICE, "gone", "gone")[0]


def chunk() -> MemoryChunk:
    """A stored chunk that does not expire, in the open door."""
    return MemoryChunk.objects.get(doc_id="gone")


def by_index() -> None:
    index_documents(user_id=ALICE, documents=[gone()])


def by_replacing() -> None:
    stored()
    index_documents(user_id=ALICE, documents=[gone()])


def by_changing_a_chunk() -> None:
    patch_chunk(user_id=ALICE, chunk_id=stored(), patch=Patch({"expires_at": PAST}))


def by_changing_a_document() -> None:
    stored()
    patch_document(user_id=ALICE, doc_id="gone", patch=Patch({"expires_at": PAST}))


def by_importing() -> None:
    line = {"doc_id": "gone", "text": "gone", "embedding": vector_of("gone").tolist(), "expires_at": PAST.isoformat()}
    assert import_lines(user_id=ALICE, lines=[json.dumps(line).encode()], batch_size=1).documents == 1


def by_restoring() -> None:
    future = Document("gone", "", (Chunk("gone", vector_of("gone")),), expires_at=FUTURE)
    index_documents(user_id=BOB, documents=[future])
    with closing(Export(user_id=BOB, embeddings=True)) as exported:
        lines = [line.replace(b"2999-", b"2001-") for line in exported]
    erase_user(user_id=BOB)
    report = import_lines(user_id=ALICE, lines=lines, batch_size=1)
    assert (report.chunks, report.bad) == (1, [])


def by_saving_a_new_chunk() -> None:
    with tenant_transaction(ALICE):
        MemoryChunk.objects.create(doc_id="gone", text="gone", embedding=vector_of("gone"), expires_at=PAST)


def by_saving_chunks_at_once() -> None:
    with tenant_transaction(ALICE) as user_hash:
        fields = {"doc_id": "gone", "text": "gone", "embedding": vector_of("gone"), "expires_at": PAST}
        MemoryChunk.objects.bulk_create([MemoryChunk(user_hash=user_hash, **fields)])


def by_saving_a_chunk_again() -> None:
    stored()
    with tenant_transaction(ALICE):
        again = chunk()
        again.expires_at = PAST
        again.save()


def by_saving_one_field() -> None:
    stored()
    with tenant_transaction(ALICE):
        again = chunk()
        again.expires_at = PAST
        again.save(update_fields=["expires_at"])


def by_updating_a_query_set() -> None:
    stored()
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(doc_id="gone").update(expires_at=PAST)


def by_updating_chunks_at_once() -> None:
    stored()
    with tenant_transaction(ALICE):
        again = chunk()
        again.expires_at = PAST
        MemoryChunk.objects.bulk_update([again], ["expires_at"])


WRITERS = [
    by_index,
    by_replacing,
    by_changing_a_chunk,
    by_changing_a_document,
    by_importing,
    by_restoring,
    by_saving_a_new_chunk,
    by_saving_chunks_at_once,
    by_saving_a_chunk_again,
    by_saving_one_field,
    by_updating_a_query_set,
    by_updating_chunks_at_once,
]


@pytest.mark.parametrize("write", WRITERS)
def test_the_first_row_that_expires_is_left_out_where_none_was_expected(write: Callable[[], None]) -> None:
    remember(ALICE, "stays", "stays")
    assert texts(recall(ALICE, "gone")) == ["stays"] and not expiring()
    assert [state.expiring for state in candidates._states.values()] == [False]
    write()
    assert texts(recall(ALICE, "gone")) == ["stays"]
    assert expiring() and inspect_all().findings == []


def test_an_async_connection_tells_too() -> None:
    remember(ALICE, "stays", "stays")
    plain = PlainChunk("gone", "", 0, "gone", {}, expires_at=PAST)

    async def write() -> None:
        connecting = connections["default"].connect_async()  # type: ignore[attr-defined]
        async with await connecting as conn, set_rls_context(conn, ALICE) as user_hash:
            await register_vectors_async(conn)
            made = list(build_rows(user_hash, [plain], vector_of("gone")[None]))
            await rows.insert_rows_async(conn, user_hash, made, RowSetChange(user_hash))

    asyncio.run(write())
    assert expiring()


@pytest.mark.usefixtures("readable_names")
def test_what_never_expires_is_told_by_nobody() -> None:
    chunk_id = stored()
    patch_chunk(user_id=ALICE, chunk_id=chunk_id, patch=Patch(metadata={"a": 1}))
    with tenant_transaction(ALICE):
        again = chunk()
        again.text, again.embedding = "other", vector_of("other")
        again.save()
        MemoryChunk.objects.update(expires_at=None, source="mail")
        again.save(update_fields=["source"])
    assert not expiring()


def test_an_erased_user_begins_again() -> None:
    by_index()
    assert expiring()
    erase_user(user_id=ALICE)
    stored()
    assert not expiring()


def test_a_tenant_of_which_nothing_is_said_may_have_rows_that_expire() -> None:
    """As a process of the version before makes it."""
    with tenant_transaction(ALICE) as user_hash, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenants (user_hash, user_cipher, enc_key_id, hmac_key_id) VALUES (%s, %s, '', '')"
            " RETURNING expiring",
            [user_hash, b"x" * 40],
        )
        assert cursor.fetchone() == (True,)
