"""A saved chunk is a found chunk: what the ORM writes is searched, counted and taken away like what the API writes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from django.db import NotSupportedError, transaction

from memory.exceptions import InvalidDocument, NotSealed, OutsideTenantTransaction, SecondTenant, TenantNotBound
from memory.index import saved_chunks
from memory.index.labels import labels
from memory.index.recipe import configured
from memory.index.tail import index_rows_of_tail
from memory.models import MemoryChunk, MemoryTerm, MemoryVector, Tenant
from memory.rls import bind_tenant, tenant_transaction, tenant_transaction_by_hash
from memory.rotation.integrity import inspect_all
from memory.search.retrieval import query_memories
from memory.security import hmac_user
from memory.tenancy.cursors import binary_cursor
from tests.factories import ALICE, BOB, recall, remember, texts, vector, vector_of
from tests.memory.waiting import in_thread, wait_until_one_waits

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the model was asked to embed."""
    asked: list[str] = []

    def embed(passages: Any) -> np.ndarray:
        asked.extend(passages)
        return np.stack([vector_of(text) for text in passages])

    monkeypatch.setattr(saved_chunks, "embed_passages", embed)
    return asked


@pytest.fixture(autouse=True)
def _everything_agrees(embedded: list[str]) -> Any:
    """After every test the index says what the seals say, and counts are right."""
    yield
    assert inspect_all().findings == []


def save(text: str = "Apollo landed", user_id: str = ALICE, **fields: Any) -> MemoryChunk:
    with tenant_transaction(user_id):
        return MemoryChunk.objects.create(**{"doc_id": "doc", "source": "chat", "text": text, **fields})


def counts(user_id: str = ALICE) -> tuple[int, int, int]:
    """Chunks, vectors and the count on the tenant's row."""
    with tenant_transaction(user_id):
        tenant = Tenant.objects.first()
        return MemoryChunk.objects.count(), MemoryVector.objects.count(), tenant.chunk_count if tenant else 0


class TestCreating:
    def test_a_created_chunk_is_found_by_its_vector_and_by_its_words(self, embedded: list[str]) -> None:
        chunk = save(metadata={"kind": "note"})
        (match,) = recall(ALICE, "Apollo landed")
        assert (match.id, match.text, match.metadata, match.doc_id) == (
            chunk.id,
            "Apollo landed",
            {"kind": "note"},
            "doc",
        )
        asked = query_memories(user_id=ALICE, query="apollo", embedding=vector(3), top_k=1, explain=True).matches[0]
        assert asked.explanation and asked.explanation.lexical > 0
        assert embedded == ["Apollo landed"] and counts() == (1, 1, 1)
        assert recall(BOB, "Apollo landed") == []

    def test_labels_are_made(self, settings: Any) -> None:
        settings.MEMORY_FILTERABLE_METADATA = ["kind"]
        save(metadata={"kind": "note"})
        with tenant_transaction(ALICE) as user_hash:
            assert MemoryVector.objects.get().labels == labels(user_hash, {"kind": "note"}, configured())

    def test_an_embedding_that_is_given_is_taken(self, embedded: list[str]) -> None:
        save("text", embedding=vector_of("elsewhere"))
        assert embedded == [] and texts(recall(ALICE, "elsewhere", top_k=1)) == ["text"]

    def test_it_takes_the_next_place_of_its_document(self) -> None:
        remember(ALICE, "doc", "one", "two")
        assert [save("three").chunk_index, save("first", doc_id="other").chunk_index] == [2, 0]
        assert save("ninth", chunk_index=8).chunk_index == 8
        assert counts() == (5, 5, 5)

    def test_save_of_a_new_instance(self) -> None:
        with tenant_transaction(ALICE) as user_hash:
            chunk = MemoryChunk(user_hash=user_hash, doc_id="doc", text="Gemini flew")
            chunk.save()
            chunk.save()
        assert texts(recall(ALICE, "Gemini flew")) == ["Gemini flew"] and counts() == (1, 1, 1)

    def test_while_a_user_is_bound(self) -> None:
        with bind_tenant(ALICE):
            MemoryChunk.objects.create(doc_id="doc", text="Apollo landed")
        assert counts() == (1, 1, 1)

    def test_bulk_create(self, embedded: list[str]) -> None:
        remember(ALICE, "doc", "zero")
        with tenant_transaction(ALICE) as user_hash:
            made = MemoryChunk.objects.bulk_create(
                [MemoryChunk(user_hash=user_hash, doc_id="doc", text=f"text {number}") for number in range(3)]
            )
            assert [chunk.chunk_index for chunk in made] == [1, 2, 3]
            made[0].source = "changed"
            made[0].save()
        assert embedded == ["text 0", "text 1", "text 2"]
        assert texts(recall(ALICE, "text 1", top_k=1)) == ["text 1"] and counts() == (4, 4, 4)

    def test_bulk_create_of_nothing(self) -> None:
        with tenant_transaction(ALICE):
            assert MemoryChunk.objects.bulk_create([]) == []
        assert counts() == (0, 0, 0)

    def test_bulk_create_refuses_to_ignore_conflicts(self) -> None:
        with tenant_transaction(ALICE), pytest.raises(NotSupportedError):
            MemoryChunk.objects.bulk_create([], ignore_conflicts=True)

    def test_it_is_found_once_a_tenant_is_large(self, settings: Any) -> None:
        settings.MEMORY_EXACT_SCAN_MAX = 3
        for number in range(6):
            save(f"Apollo {number}")
        with tenant_transaction(ALICE):
            assert MemoryTerm.objects.count() > 0
        assert texts(recall(ALICE, "Apollo 5", top_k=1)) == ["Apollo 5"] and counts() == (6, 6, 6)

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"text": " "}, "text"),
            ({"doc_id": ""}, "doc_id"),
            ({"source": "a\0b"}, "source"),
            ({"embedding": [1.0, 2.0]}, "embedding"),
        ],
    )
    def test_what_cannot_be_stored_is_named(self, fields: dict[str, Any], field: str) -> None:
        with pytest.raises(InvalidDocument) as caught:
            save(**fields)
        assert caught.value.field == field and counts() == (0, 0, 0)

    def test_nothing_is_stored_when_the_transaction_fails(self) -> None:
        with pytest.raises(RuntimeError), tenant_transaction(ALICE):
            MemoryChunk.objects.create(doc_id="doc", text="Apollo landed")
            raise RuntimeError("power cut")
        assert counts() == (0, 0, 0)

    def test_nobody_creates_outside_a_door(self) -> None:
        with pytest.raises(OutsideTenantTransaction):
            MemoryChunk.objects.create(doc_id="doc", text="text")


class TestChanging:
    def test_a_changed_text_is_embedded_and_found_by_what_it_says_now(self, embedded: list[str]) -> None:
        chunk = save()
        embedded.clear()
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.get(id=chunk.id)
            row.text = "Gemini flew"
            row.save()
        assert embedded == ["Gemini flew"]
        assert recall(ALICE, "Gemini flew", top_k=1)[0].explanation is None
        (match,) = query_memories(user_id=ALICE, query="gemini", embedding=vector(3), top_k=1, explain=True).matches
        assert match.text == "Gemini flew" and match.explanation and match.explanation.lexical > 0
        assert counts() == (1, 1, 1)

    @pytest.mark.parametrize("update_fields", [None, ["text_cipher"]])
    def test_a_changed_text_with_an_embedding_of_its_own(self, embedded: list[str], update_fields: Any) -> None:
        chunk = save()
        embedded.clear()
        with tenant_transaction(ALICE):
            chunk.text, chunk.embedding = "Gemini flew", vector_of("elsewhere")
            chunk.save(update_fields=update_fields)
        assert embedded == [] and texts(recall(ALICE, "elsewhere", top_k=1)) == ["Gemini flew"]

    @pytest.mark.parametrize("update_fields", [None, ["source"]])
    def test_a_changed_source_is_what_filters_ask(self, embedded: list[str], update_fields: Any) -> None:
        chunk = save()
        embedded.clear()
        with tenant_transaction(ALICE):
            chunk.source = "notes"
            chunk.save(update_fields=update_fields)
            assert MemoryVector.objects.filter(source="notes").count() == 1
        assert embedded == []

    @pytest.mark.usefixtures("readable_names")
    def test_an_update_of_what_the_index_repeats_is_made_there_too(self) -> None:
        save(), save("other", doc_id="other")
        with tenant_transaction(ALICE):
            assert MemoryChunk.objects.filter(doc_id="doc").update(source="notes", doc_id="renamed") == 1
            assert set(MemoryVector.objects.values_list("doc_id", "source")) == {
                ("renamed", "notes"),
                ("other", "chat"),
            }

    def test_a_row_that_was_read_in_part(self, embedded: list[str]) -> None:
        save()
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.defer("emb_cipher", "meta_cipher").get()
            row.text = "Gemini flew"
            row.save()
        assert texts(recall(ALICE, "Gemini flew", top_k=1)) == ["Gemini flew"]

    def test_a_large_tenants_changed_row_leaves_its_old_postings(self, settings: Any) -> None:
        settings.MEMORY_EXACT_SCAN_MAX = 1
        save("one"), save("two")
        third = save("Apollo landed")
        with tenant_transaction(ALICE):
            third.text = "Gemini flew"
            third.save()
        found = query_memories(user_id=ALICE, query="apollo", embedding=vector(3), top_k=3, explain=True).matches
        assert all(match.explanation and match.explanation.lexical == 0 for match in found)

    def test_update_or_create(self) -> None:
        with tenant_transaction(ALICE):
            for text in ("Apollo landed", "Gemini flew"):
                MemoryChunk.objects.update_or_create(doc_id="doc", chunk_index=0, defaults={"text": text})
        assert texts(recall(ALICE, "Gemini flew")) == ["Gemini flew"] and counts() == (1, 1, 1)

    @pytest.mark.usefixtures("readable_names")
    def test_bulk_update(self) -> None:
        chunks = [save("one"), save("two")]
        with tenant_transaction(ALICE):
            for number, chunk in enumerate(chunks):
                chunk.source = f"source {number}"
            MemoryChunk.objects.bulk_update(chunks, ["source"])
            assert sorted(MemoryVector.objects.values_list("source", flat=True)) == ["source 0", "source 1"]


class TestDeleting:
    def test_nothing_deleted_makes_no_tenant(self) -> None:
        with tenant_transaction(ALICE):
            assert MemoryChunk.objects.filter(doc_id="doc").delete()[0] == 0
            assert MemoryChunk.objects.update(source="notes") == 0
            assert Tenant.objects.count() == 0

    def test_a_deleted_instance_that_is_saved_again_is_counted_again(self) -> None:
        chunk = save()
        with tenant_transaction(ALICE):
            MemoryChunk.objects.all().delete()
            chunk.save()
        assert texts(recall(ALICE, "Apollo landed")) == ["Apollo landed"] and counts() == (1, 1, 1)

    def test_an_instance(self) -> None:
        chunk, _ = save(), save("stays")
        with tenant_transaction(ALICE):
            chunk.delete()
        assert texts(recall(ALICE, "stays")) == ["stays"] and counts() == (1, 1, 1)

    def test_a_queryset(self) -> None:
        remember(ALICE, "doc", "one", "two"), save("stays", doc_id="other")
        with tenant_transaction(ALICE):
            assert MemoryChunk.objects.filter(doc_id="doc").delete()[0] == 2
        assert texts(recall(ALICE, "stays")) == ["stays"] and counts() == (1, 1, 1)

    def test_a_deletion_that_is_rolled_back(self) -> None:
        chunk = save()
        with tenant_transaction(ALICE), pytest.raises(RuntimeError), transaction.atomic():
            chunk.delete()
            raise RuntimeError("power cut")
        assert counts() == (1, 1, 1)


def test_another_users_chunk_is_refused() -> None:
    """Its seals are bound to the other user: stored here, they would never open."""
    with tenant_transaction(ALICE), pytest.raises(SecondTenant):
        MemoryChunk.objects.bulk_create([MemoryChunk(user_hash=hmac_user(BOB), doc_id="doc", text="text")])
    assert counts() == (0, 0, 0)


def test_a_door_by_hash_makes_no_tenant_of_another_bound_user() -> None:
    with bind_tenant(BOB), pytest.raises(TenantNotBound), tenant_transaction_by_hash(hmac_user(ALICE)):
        MemoryChunk.objects.create(doc_id="d", source="chat", text="a", embedding=vector_of("a"))


def test_chunks_that_are_saved_at_once_take_places_of_their_own() -> None:
    with ThreadPoolExecutor() as threads:
        jobs = [threads.submit(in_thread, save, text=f"text {number}") for number in range(6)]
    assert sorted(job.result().chunk_index for job in jobs) == [0, 1, 2, 3, 4, 5]
    assert counts() == (6, 6, 6)


def test_what_is_not_sealed_is_refused() -> None:
    with tenant_transaction(ALICE) as user_hash, pytest.raises(NotSealed):
        MemoryChunk.objects.bulk_create([MemoryChunk(user_hash=user_hash, doc_id="d", text_cipher=b"x" * 40)])


def test_a_chunk_that_is_saved_while_its_row_goes_into_the_indexes_leaves_no_postings(settings: Any) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 1
    first, _ = remember(ALICE, "doc", "violin", "river")
    indexed = threading.Event()

    def index() -> None:
        with tenant_transaction(ALICE) as user_hash, binary_cursor() as cursor:
            assert index_rows_of_tail(cursor, user_hash, 10) == 2
            indexed.set()
            wait_until_one_waits()

    with ThreadPoolExecutor() as beside:
        done = beside.submit(in_thread, index)
        assert indexed.wait(30)
        with tenant_transaction(ALICE):
            chunk = MemoryChunk.objects.get(id=first)
            chunk.text = "passport"
            chunk.save()
        done.result()
    assert texts(recall(ALICE, "passport"))[0] == "passport"
