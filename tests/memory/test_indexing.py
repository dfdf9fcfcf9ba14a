"""Storing: all of a call or none of it, and a document is replaced whole."""

import asyncio
import threading
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import connection

from memory import indexing
from memory.documents.document import Chunk, Document
from memory.exceptions import InvalidDocument
from memory.index import tables
from memory.indexing import existing_doc_ids, index_documents, index_memory_chunk
from memory.models import MemoryChunk, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.security import hmac_user
from memory.tenancy import tenant_row
from tests.factories import ALICE, BOB, DIM, document, recall, remember, texts, vector_of


def counts(user_id: str = ALICE) -> tuple[int, int, int]:
    """Chunks, vectors and the count on the tenant's row."""
    with tenant_transaction(user_id):
        tenant = Tenant.objects.first()
        return MemoryChunk.objects.count(), MemoryVector.objects.count(), tenant.chunk_count if tenant else 0


@pytest.mark.django_db
class TestIndexing:
    def test_keeps_order_ids_and_everything_given(self) -> None:
        ids = remember(ALICE, "doc", "one", "two", "three", source="notes", metadata={"k": [1, {"ü": None}]})
        with tenant_transaction(ALICE):
            rows: Any = list(MemoryChunk.objects.order_by("id"))
        assert [row.id for row in rows] == ids == sorted(ids)
        assert [(row.chunk_index, row.text) for row in rows] == [(0, "one"), (1, "two"), (2, "three")]
        assert {row.source for row in rows} == {"notes"}
        assert all(row.metadata == {"k": [1, {"ü": None}]} for row in rows)
        assert all(np.array_equal(row.embedding, vector_of(row.text)) for row in rows)

    def test_a_document_is_replaced_whole_and_keeps_its_first_time(self) -> None:
        remember(ALICE, "doc", "one", "two", "three")
        remember(ALICE, "other", "stays")
        with tenant_transaction(ALICE):
            first = MemoryChunk.objects.filter(doc_id="doc").earliest("id").created_at
        (again,) = index_documents(user_id=ALICE, documents=[document("doc", "new")])
        assert again.replaced == 3
        assert counts() == (2, 2, 2)
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.get(doc_id="doc")
            assert row.created_at == first <= row.updated_at

    def test_users_do_not_replace_each_others_documents(self) -> None:
        remember(ALICE, "doc", "Alice's")
        remember(BOB, "doc", "Bob's")
        assert texts(recall(ALICE, "Alice's")) == ["Alice's"] and texts(recall(BOB, "x")) == ["Bob's"]

    def test_the_tenant_carries_its_user_id_sealed(self) -> None:
        remember(ALICE, "doc", "text")
        with tenant_transaction(ALICE):
            tenant: Any = Tenant.objects.get()
        assert tenant.user_id == ALICE and tenant.user_hash == hmac_user(ALICE)

    def test_more_rows_than_one_statement_takes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "ROWS", 7)
        ids = remember(ALICE, "doc", *(f"text {number}" for number in range(20)))
        assert len(ids) == 20 and ids == sorted(ids)
        assert counts() == (20, 20, 20)

    def test_embeds_what_comes_without_a_vector(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def embed(texts: list[str]) -> np.ndarray:
            asked.extend(texts)
            return np.stack([vector_of(text) for text in texts])

        monkeypatch.setattr(indexing, "embed_passages", embed)
        chunks = (Chunk("given", vector_of("given")), Chunk("missing"))
        index_documents(user_id=ALICE, documents=[Document("doc", "", chunks, {})])
        assert asked == ["missing"]
        assert texts(recall(ALICE, "missing", top_k=1)) == ["missing"]

    def test_embeds_in_portions_the_longest_first_and_tells_how_far_it_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[list[str]] = []

        def embed(given: list[str]) -> Any:
            asked.append(given)
            return np.stack([vector_of(text) for text in given])

        monkeypatch.setattr(indexing, "embed_passages", embed)
        monkeypatch.setattr(indexing, "PORTION", 2)
        told: list[tuple[int, int]] = []
        made = Document("doc", "", (Chunk("a"), Chunk("bbb"), Chunk("given", vector_of("given")), Chunk("cc")))
        index_documents(user_id=ALICE, documents=[made], progress=lambda *seen: told.append(seen))
        assert asked == [["bbb", "cc"], ["a"]]
        assert told == [(1, 4), (3, 4), (4, 4)]
        with tenant_transaction(ALICE):
            for chunk in MemoryChunk.objects.all():
                assert chunk.embedding == pytest.approx(vector_of(chunk.text), abs=1e-6)

    def test_what_is_done_within_is_stored_with_the_documents_or_not_at_all(self) -> None:
        def within(cursor: Any, user_hash: Any, indexed: Any) -> None:
            assert (user_hash, indexed[0].doc_id, len(indexed[0].chunk_ids)) == (hmac_user(ALICE), "doc", 1)
            raise KeyError("taken back")

        with pytest.raises(KeyError):
            index_documents(user_id=ALICE, documents=[document("doc", "one")], within=within)
        assert counts() == (0, 0, 0)

    def test_existing_documents(self) -> None:
        remember(ALICE, "a", "text")
        remember(BOB, "b", "text")
        assert existing_doc_ids(user_id=ALICE, doc_ids=["a", "b", "c"]) == {"a"}


GOOD = document("good", "good")
BAD: list[tuple[Document, str]] = [
    (document("doc"), "documents[1].chunks"),
    (document("", "text"), "documents[1].doc_id"),
    (document("good", "text"), "documents[1].doc_id"),
    (document("a\0b", "text"), "documents[1].doc_id"),
    (document("doc", "text", source="a\0b"), "documents[1].source"),
    (document("doc", "  \n"), "documents[1].chunks[0].text"),
    (Document("doc", "", (Chunk("t"),), ["no object"]), "documents[1].metadata"),  # type: ignore[arg-type]
    (Document("doc", "", (Chunk("t", [1.0]),), {}), "documents[1].chunks[0].embedding"),
    (Document("doc", "", (Chunk("t", [0.0] * DIM),), {}), "documents[1].chunks[0].embedding"),
    (Document("doc", "", (Chunk("t", [float("nan")] * DIM),), {}), "documents[1].chunks[0].embedding"),
    (Document("doc", "", (Chunk("t", [float("inf")] * DIM),), {}), "documents[1].chunks[0].embedding"),
    (Document("doc", "", (Chunk("t", [1e300] * DIM),), {}), "documents[1].chunks[0].embedding"),
    (Document("doc", "", (Chunk("t", ["x"] * DIM),), {}), "documents[1].chunks[0].embedding"),  # type: ignore[list-item]
]


@pytest.mark.django_db
class TestNothingIsHalfWritten:
    @pytest.mark.parametrize(("bad", "field"), BAD)
    def test_a_bad_document_is_named_and_its_neighbours_are_not_written(self, bad: Document, field: str) -> None:
        with pytest.raises(InvalidDocument) as caught:
            index_documents(user_id=ALICE, documents=[GOOD, bad])
        assert caught.value.field == field
        assert counts() == (0, 0, 0)

    def test_a_failure_in_the_middle_leaves_the_old_document(self, monkeypatch: pytest.MonkeyPatch) -> None:
        remember(ALICE, "doc", "old one", "old two")
        monkeypatch.setattr(tables, "ROWS", 1)
        monkeypatch.setattr(tenant_row, "change_rows", _fail)
        with pytest.raises(RuntimeError, match="power cut"):
            remember(ALICE, "doc", "new")
        assert counts() == (2, 2, 2)
        assert set(texts(recall(ALICE, "old one"))) == {"old one", "old two"}


def _fail(*args: Any) -> None:
    raise RuntimeError("power cut")


@pytest.mark.django_db(transaction=True)
def test_writers_of_one_document_serialise() -> None:
    """Eight at once, from the user's very first write on: one version stays, whole, and the count is right."""
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            remember(ALICE, "doc", *(f"version {number}" for _ in range(number + 1)))
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with tenant_transaction(ALICE):
        rows: Any = list(MemoryChunk.objects.all())
        assert len({row.text for row in rows}) == 1
        assert len(rows) == int(rows[0].text.split()[1]) + 1
    assert counts() == (len(rows),) * 3


def append(*calls: tuple[str, str], together: bool = False, metadata: Any = None) -> list[UUID]:
    """`index_memory_chunk` for each (doc_id, text), over a connection of its own when they come together."""

    async def call(doc_id: str, text: str) -> UUID:
        async with await psycopg.AsyncConnection.connect(**connection.parameters_of("app")) as conn:
            return await index_memory_chunk(conn, ALICE, doc_id, "chat", text, vector_of(text), metadata or {})

    async def work() -> list[UUID]:
        if together:
            return await asyncio.gather(*(call(*each) for each in calls))
        return [await call(*each) for each in calls]

    return async_to_sync(work)()


def stored(doc_id: str) -> list[tuple[int, str]]:
    with tenant_transaction(ALICE):
        rows: Any = MemoryChunk.objects.filter(doc_id=doc_id).order_by("chunk_index")
        return [(row.chunk_index, row.text) for row in rows]


@pytest.mark.django_db(transaction=True)
class TestIndexMemoryChunk:
    def test_two_calls_leave_two_rows(self) -> None:
        first, second = append(("doc", "one"), ("doc", "two"))
        assert first < second
        assert stored("doc") == [(0, "one"), (1, "two")]
        assert counts() == (2, 2, 2)
        assert texts(recall(ALICE, "one", top_k=1)) == ["one"] and texts(recall(ALICE, "two", top_k=1)) == ["two"]

    def test_calls_at_once_take_places_of_their_own(self) -> None:
        append(*(("doc", f"text {number}") for number in range(6)), together=True)
        assert [place for place, _ in stored("doc")] == [0, 1, 2, 3, 4, 5]
        assert {text for _, text in stored("doc")} == {f"text {number}" for number in range(6)}
        assert counts() == (6, 6, 6)

    def test_the_next_place_is_the_documents_own(self) -> None:
        remember(ALICE, "long", "one", "two", "three")
        append(("other", "first"), ("long", "four"))
        assert stored("other") == [(0, "first")]
        assert stored("long")[-1] == (3, "four")

    @pytest.mark.parametrize("metadata", [["a"], "text", 5, {"when": object()}, {"x": float("nan")}])
    def test_metadata_that_is_no_json_object_is_named(self, metadata: Any) -> None:
        with pytest.raises(InvalidDocument) as caught:
            append(("doc", "one"), metadata=metadata)
        assert caught.value.field == "metadata"
        assert counts() == (0, 0, 0)

    @pytest.mark.parametrize(("doc_id", "text", "field"), [("", "text", "doc_id"), ("doc", " ", "text")])
    def test_what_else_cannot_be_stored_is_named(self, doc_id: str, text: str, field: str) -> None:
        with pytest.raises(InvalidDocument) as caught:
            append((doc_id, text))
        assert caught.value.field == field
