"""What has expired is in no answer, and is purged with counts."""

import io
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from django.core.management import call_command

from memory.documents.document import Chunk, Document
from memory.documents.patches import Patch
from memory.erasure import delete_document, erase_user
from memory.exceptions import ChunkNotFound
from memory.importing import import_lines
from memory.index.tail import index_tail
from memory.indexing import existing_doc_ids, index_documents
from memory.listing import Sort, get_chunk, get_chunks, list_chunks, read_document
from memory.models import MemoryChunk, MemoryTerm, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.rotation.integrity import inspect_all
from memory.search.retrieval import query_memories
from memory.verbs import expiry
from memory.verbs.expiry import purge_expired
from memory.verbs.patching import patch_chunk, patch_document
from tests.factories import ALICE, API, BOB, person_client, recall, texts, vector, vector_of
from tests.memory.waiting import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

PAST, FUTURE = datetime(2001, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)


def store(doc_id: str, expires_at: datetime | None, *, user_id: str = ALICE, count: int = 1) -> list[UUID]:
    chunks = tuple(Chunk(f"{doc_id} {number}", vector_of(f"{doc_id} {number}")) for number in range(count))
    (stored,) = index_documents(user_id=user_id, documents=[Document(doc_id, "", chunks, expires_at=expires_at)])
    return stored.chunk_ids


def test_no_read_gives_what_has_expired() -> None:
    (gone,), (stays,) = store("gone", PAST), store("stays", FUTURE)
    assert texts(recall(ALICE, "gone 0")) == ["stays 0"]
    for sort in Sort:
        assert [chunk.text for chunk in list_chunks(user_id=ALICE, limit=9, sort=sort).chunks] == ["stays 0"]
    with pytest.raises(ChunkNotFound):
        get_chunk(user_id=ALICE, chunk_id=gone)
    found = get_chunks(user_id=ALICE, chunk_ids=[gone, stays])
    assert (found.missing, [chunk.id for chunk in found.chunks]) == ([gone], [stays])
    with pytest.raises(ChunkNotFound):
        read_document(user_id=ALICE, doc_id="gone", limit=9)
    with tenant_transaction(ALICE):
        assert MemoryChunk.objects.count() == 2 and MemoryChunk.objects.unexpired().count() == 1


def test_nothing_changes_what_has_expired() -> None:
    (gone,) = store("gone", PAST)
    with pytest.raises(ChunkNotFound):
        patch_chunk(user_id=ALICE, chunk_id=gone, patch=Patch(metadata={"a": 1}))
    with pytest.raises(ChunkNotFound):
        patch_document(user_id=ALICE, doc_id="gone", patch=Patch(metadata={"a": 1}))


def test_the_graph_gives_nothing_that_has_expired(settings: Any) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 50
    rng = np.random.default_rng(5)
    for number in range(300):
        expires_at = PAST if number % 3 == 0 else None
        chunk = Chunk("apollo", rng.normal(size=384))
        index_documents(user_id=ALICE, documents=[Document(f"doc-{number}", "", (chunk,), expires_at=expires_at)])
    index_tail(user_id=ALICE, limit=10_000)
    answer = query_memories(user_id=ALICE, query="apollo", embedding=vector(), top_k=300)
    numbers = {int(match.doc_id.removeprefix("doc-")) for match in answer.matches}
    assert len(numbers) == 200 and not any(number % 3 == 0 for number in numbers)
    assert purge_expired().deleted["memory_chunks"] == 100
    again = query_memories(user_id=ALICE, query="apollo", embedding=vector(), top_k=300)
    assert {match.id for match in again.matches} == {match.id for match in answer.matches}


def test_an_expired_document_is_imported_again() -> None:
    store("doc", PAST)
    assert existing_doc_ids(user_id=ALICE, doc_ids=["doc"]) == set()
    line = json.dumps({"doc_id": "doc", "text": "again", "embedding": vector()}).encode()
    assert import_lines(user_id=ALICE, lines=[line], batch_size=1).documents == 1
    assert [chunk.text for chunk in list_chunks(user_id=ALICE, limit=9).chunks] == ["again"]


def test_whoever_deletes_deletes_what_has_expired_too() -> None:
    store("doc", PAST, count=2)
    assert delete_document(user_id=ALICE, doc_id="doc") == 2
    store("doc", PAST, count=2)
    receipt = erase_user(user_id=ALICE)
    assert (receipt.deleted["memory_chunks"], receipt.remaining["memory_chunks"]) == (2, 0)


class TestPurging:
    def test_it_deletes_what_has_expired_of_all_tenants_and_counts(self, settings: Any) -> None:
        settings.MEMORY_EXACT_SCAN_MAX = 2
        store("gone", PAST, count=3), store("stays", FUTURE, count=2), store("gone", PAST, user_id=BOB)
        store("for ever", None)
        index_tail(user_id=ALICE, limit=100)
        with tenant_transaction(ALICE):
            terms = MemoryTerm.objects.count()
        out = io.StringIO()
        call_command("purge_expired", "--json", stdout=out)
        counts = json.loads(out.getvalue())
        with tenant_transaction(ALICE):
            assert Tenant.objects.get().chunk_count == MemoryChunk.objects.count() == MemoryVector.objects.count() == 3
            terms -= MemoryTerm.objects.count()
        deleted = {"memory_chunks": 4, "memory_vectors": 4, "memory_terms": terms}
        assert counts == {"tenants": 2, "deleted": deleted, "remaining": 0} and terms > 0
        assert inspect_all().findings == []

    def test_nothing_to_purge(self) -> None:
        store("stays", FUTURE)
        out = io.StringIO()
        call_command("purge_expired", stdout=out)
        assert out.getvalue() == "Rows deleted: none; 0 tenants. Expired since then: 0.\n"

    def test_in_many_short_transactions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expiry, "ROWS_PER_BATCH", 2)
        store("gone", PAST, count=5)
        told: list[int] = []
        assert purge_expired(progress=told.append).deleted["memory_chunks"] == 5
        assert told == [2, 2, 1]

    def test_two_at_once_and_a_writer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(expiry, "ROWS_PER_BATCH", 2)
        store("gone", PAST, count=30)
        with ThreadPoolExecutor() as threads:
            runs = [threads.submit(in_thread, purge_expired) for _ in range(2)]
            threads.submit(in_thread, lambda: store("new", FUTURE, count=5)).result()
        assert sum(run.result().deleted["memory_chunks"] for run in runs) == 30
        assert len(list_chunks(user_id=ALICE, limit=99).chunks) == 5
        assert inspect_all().findings == []


class TestTimesOfMemories:
    """Filters by time and lists in its order; what has no time of its own has that of its creation."""

    @pytest.fixture(autouse=True)
    def _memories(self) -> None:
        self.client = person_client()
        june, moon = "2022-06-02T00:00:00Z", "1969-07-20T20:17:40Z"
        for text, occurred_at in (("b", june), ("now", None), ("a", moon), ("c", june)):
            body = {"text": text, "embedding": vector(), **({"occurred_at": occurred_at} if occurred_at else {})}
            assert self.client.post(f"{API}/memories/index", body, content_type="application/json").status_code == 200

    def listed(self, **parameters: Any) -> list[str]:
        seen: list[str] = []
        while True:
            page = self.client.get(f"{API}/memories", {"limit": 1, **parameters}).json()
            seen += [memory["text"] for memory in page["memories"]]
            if page["next_cursor"] is None:
                return seen
            parameters["cursor"] = page["next_cursor"]

    def test_lists(self) -> None:
        assert self.listed() == self.listed(sort="-created_at") == ["c", "a", "now", "b"]
        assert self.listed(sort="occurred_at") == ["a", "b", "c", "now"]
        assert self.listed(sort="-occurred_at") == ["now", "c", "b", "a"]
        assert self.listed(sort="occurred_at", occurred_after="2022-06-02T00:00:00Z") == ["b", "c", "now"]
        assert self.listed(occurred_before="2022-06-02T00:00:00Z") == ["a"]

    def test_a_cursor_of_another_order_is_refused(self) -> None:
        for one, other in (("occurred_at", "-created_at"), ("-created_at", "occurred_at")):
            cursor = self.client.get(f"{API}/memories", {"limit": 1, "sort": one}).json()["next_cursor"]
            response = self.client.get(f"{API}/memories", {"sort": other, "cursor": cursor})
            assert response.status_code == 400 and [e["field"] for e in response.json()["errors"]] == ["cursor"]

    @pytest.mark.parametrize("cursor", ["A" * 31, "A" * 32 + "=", "f" * 32, "A" * 33, "A" * 21 + "B", "ä" * 32])
    def test_a_cursor_of_nobodys_is_refused(self, cursor: str) -> None:
        response = self.client.get(f"{API}/memories", {"sort": "occurred_at", "cursor": cursor})
        assert response.status_code == 400

    def test_queries(self) -> None:
        def asked(**scope: Any) -> list[str]:
            body = {"query": "q", "embedding": vector(), "rerank": False, **scope}
            answer = self.client.post(f"{API}/memories/query", body, content_type="application/json").json()
            return sorted(match["text"] for match in answer["matches"])

        assert asked(occurred_after="2022-06-02T00:00:00Z") == ["b", "c", "now"]
        assert asked(occurred_before="2022-06-02T02:00:00+02:00") == ["a"]
        today = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        assert asked(occurred_after=today) == ["now"] and len(asked(created_after=today)) == 4
