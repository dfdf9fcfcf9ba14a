"""Whoever writes inside one user's rows: what is edited, swapped or copied is refused by the next read, whatever way it
comes, and named by verify_integrity."""

import logging
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connection

from keys.pace import Pace
from keys.rotation import rotate
from memory import metrics
from memory.documents.document import Chunk, Document
from memory.documents.patches import Patch
from memory.exceptions import RowAltered
from memory.index.reindexing import reindex_tenant
from memory.index.rows import TABLES
from memory.indexing import index_documents
from memory.listing import get_chunk, get_chunks, list_chunks, read_document
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.rotation import row_integrity
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.rotation.findings import ALTERED, INDEX_ALTERED, NO_MAC, ROW_SET, UNREADABLE
from memory.rotation.integrity import inspect_all
from memory.search.retrieval import query_memories
from memory.security import user_hashes
from memory.verbs.exporting import Export
from memory.verbs.patching import patch_chunk, patch_document
from tests.factories import ALICE, BOB, recall, remember, texts, vector_of
from tests.memory.rotation.rotating import promoted

pytestmark = pytest.mark.django_db(transaction=True)

FIRST = "chunk_index = 0 AND doc_id = 'diary'"
OTHER = "(SELECT {0} FROM memory_chunks WHERE chunk_index = 1 AND doc_id = 'diary')"
# What is done to the first chunk of the diary. `now()` is before a transaction's own writes and after all others.
EDITED = {
    "source": "source = 'elsewhere'",
    "document": "doc_id = 'other'",
    "place": "chunk_index = 7",
    "created": "created_at = created_at - interval '1 day'",
    "updated": "updated_at = updated_at + interval '1 microsecond'",
    "occurred": "occurred_at = now()",
    "expires": "expires_at = now() + interval '1 day'",
    "context taken away": "context_cipher = NULL",
    "mac": "chunk_mac = set_byte(chunk_mac, 79, get_byte(chunk_mac, 79) # 1)",
    "version": "chunk_mac = set_byte(chunk_mac, 0, get_byte(chunk_mac, 0) # 1)",
}
SWAPPED = {
    name: f"{column} = {OTHER.format(column)}"
    for name, column in {
        "text": "text_cipher",
        "metadata": "meta_cipher",
        "context": "context_cipher",
        "mac of another": "chunk_mac",
    }.items()
}
COPIED = {
    "all of another but its id and place": ", ".join(
        f"{column} = {OTHER.format(column)}"
        for column in (
            "text_cipher",
            "meta_cipher",
            "emb_cipher",
            "context_cipher",
            "chunk_mac",
            "source",
            "created_at",
        )
    )
}
DAMAGE = {
    **{f"edited {name}": change for name, change in EDITED.items()},
    **{f"swapped {name}": change for name, change in SWAPPED.items()},
    **{f"copied {name}": change for name, change in COPIED.items()},
}


@pytest.fixture(autouse=True)
def _two_users(readable_names: None) -> None:
    chunks = tuple(Chunk(text, vector_of(text), author=text.lower()) for text in ("Apollo", "Gemini"))
    index_documents(user_id=ALICE, documents=[Document("diary", "chat", chunks, {"mission": 1})])
    remember(BOB, "diary", "Mercury")


@pytest.fixture
def refused() -> Iterator[Callable[[], float]]:
    before = metrics.ROWS_REFUSED.labels("altered")._value.get()
    yield lambda: metrics.ROWS_REFUSED.labels("altered")._value.get() - before


def damage(change: str, where: str = FIRST, table: str = "memory_chunks") -> None:
    """Write as whoever may write inside one user's rows."""
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {change} WHERE {where}")
        assert cursor.rowcount == 1


def first_id() -> UUID:
    with tenant_transaction(ALICE):
        return MemoryChunk.objects.values_list("id", flat=True).get(chunk_index=0, doc_id="diary")


def kinds() -> set[str]:
    return {finding.kind for finding in inspect_all().findings}


def lines() -> list[Any]:
    export = Export(user_id=ALICE)
    try:
        return list(export)
    finally:
        export.close()


# --- One test for each kind -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_cell_that_is_not_as_it_was_written(
    change: str, refused: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> None:
    chunk_id = first_id()
    damage(change)
    with caplog.at_level(logging.ERROR):
        listed = list_chunks(user_id=ALICE, limit=10)
    assert ([chunk.text for chunk in listed.chunks], listed.integrity_failures) == (["Gemini"], 1)
    assert [record.chunk_id for record in caplog.records] == [str(chunk_id)]  # type: ignore[attr-defined]
    assert refused() == 1
    assert ALTERED in kinds()


def test_a_copied_row_under_another_id() -> None:
    """With its vector and all that it is found by, as somebody would who wants it found."""
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        for table in TABLES:
            others = ", ".join(column for column in table.columns if column not in ("id", "chunk_index"))
            cursor.execute(
                f"INSERT INTO {table.name} (user_hash, id, chunk_index, {others})"
                f" SELECT user_hash, %s, 9, {others} FROM {table.name} WHERE {FIRST}",
                [UUID(int=7)],
            )
    assert sorted(texts(recall(ALICE, "Apollo"))) == ["Apollo", "Gemini"]
    assert ALTERED in kinds()


# --- Every way to read refuses it -------------------------------------------------------------------------------------
def test_a_query_leaves_it_out_and_counts_it() -> None:
    damage(EDITED["source"])
    result = query_memories(user_id=ALICE, query="Apollo", embedding=vector_of("Apollo"), top_k=5)
    assert (texts(result.matches), result.integrity_failures) == (["Gemini"], 1)


def test_what_is_around_a_match_leaves_it_out() -> None:
    damage(EDITED["source"])
    result = query_memories(
        user_id=ALICE, query="Gemini", embedding=vector_of("Gemini"), top_k=1, context=1, rerank=False
    )
    (match,) = result.matches
    assert match.context is not None
    assert (match.context.before, result.integrity_failures) == ([], 1)


def test_every_other_read() -> None:
    chunk_id = first_id()
    damage(EDITED["source"])
    with pytest.raises(RowAltered):
        get_chunk(user_id=ALICE, chunk_id=chunk_id)
    assert get_chunks(user_id=ALICE, chunk_ids=[chunk_id]).integrity_failures == 1
    assert read_document(user_id=ALICE, doc_id="diary", limit=5).integrity_failures == 1
    assert b'"integrity_failures":1' in lines()[-1]
    with tenant_transaction(ALICE), pytest.raises(RowAltered):
        _ = MemoryChunk.objects.get(id=chunk_id).text
    with tenant_transaction(ALICE), pytest.raises(RowAltered):
        _ = MemoryChunk.objects.only("text_cipher").get(id=chunk_id).text


def test_a_swapped_embedding_is_refused_where_it_is_read() -> None:
    """A query does not fetch it; whatever makes an index of it does, and verify_integrity."""
    damage(f"emb_cipher = {OTHER.format('emb_cipher')}")
    with tenant_transaction(ALICE), pytest.raises(RowAltered):
        _ = MemoryChunk.objects.get(chunk_index=0, doc_id="diary").embedding
    assert ALTERED in kinds()


# --- No writer makes a right MAC for it -------------------------------------------------------------------------------
def test_no_change_is_made_to_it() -> None:
    chunk_id = first_id()
    damage(EDITED["source"])
    with pytest.raises(RowAltered):
        patch_chunk(user_id=ALICE, chunk_id=chunk_id, patch=Patch(metadata={"mission": 2}))
    with pytest.raises(RowAltered):
        patch_document(user_id=ALICE, doc_id="diary", patch=Patch({"title": "mended"}))
    with tenant_transaction(ALICE), pytest.raises(RowAltered):
        MemoryChunk.objects.filter(id=chunk_id).update(source="mended")
    with tenant_transaction(ALICE), pytest.raises(RowAltered):
        MemoryChunk(user_hash=user_hashes(ALICE)[0], id=chunk_id, doc_id="diary", chunk_index=0, text="mended").save()
    assert ALTERED in kinds()


def test_a_rotation_of_the_encryption_key_leaves_it_and_says_so() -> None:
    damage(EDITED["source"])
    chunk_id = first_id()
    with promoted() as (old, new):
        failed = rotate(EncryptionKeyMover(), started_by="test", pace=Pace())
        (failure,) = failed.failures
        assert (failed.state, failure["row"]) == ("failed", str(chunk_id))
        with tenant_transaction(ALICE):
            assert MemoryChunk.objects.get(id=chunk_id).enc_key_id == old.key_id
            assert MemoryChunk.objects.get(chunk_index=1).enc_key_id == new.key_id
        assert ALTERED in kinds()
        damage("source = 'chat'")
        assert rotate(EncryptionKeyMover(), started_by="test", pace=Pace()).verified
        assert kinds() == set()


def test_a_reindex_leaves_it(settings: Any) -> None:
    damage(EDITED["source"])
    done = reindex_tenant(user_hashes(ALICE)[0], force=True)
    assert done.unreadable == 1
    assert ALTERED in kinds()


# --- The index --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [
        "recipe_id = recipe_id + 1",
        "vector_mac = set_byte(vector_mac, 0, get_byte(vector_mac, 0) # 1)",
        "embedding = embedding * array_fill(1.00001::real, ARRAY[vector_dims(embedding)])::vector",
    ],
)
def test_a_row_of_the_index_that_is_not_as_it_was_written(change: str) -> None:
    damage(change, table="memory_vectors")
    assert kinds() == {INDEX_ALTERED}


def test_a_time_that_cannot_be_read_stops_nobody_else() -> None:
    damage("created_at = 'infinity'")
    with tenant_transaction(BOB), connection.cursor() as cursor:
        cursor.execute("UPDATE memory_chunks SET source = 'elsewhere'")
    assert kinds() >= {UNREADABLE, ALTERED}


def test_a_row_whose_mac_was_taken_away(settings: Any) -> None:
    damage("chunk_mac = NULL")
    assert list_chunks(user_id=ALICE, limit=5).integrity_failures == 1
    damage("vector_mac = NULL", "chunk_index = 1", "memory_vectors")
    assert kinds() == {NO_MAC, ROW_SET}
    settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = True
    seen = inspect_all()
    assert (list_chunks(user_id=ALICE, limit=5).integrity_failures, seen.without_mac) == (0, 1)


# --- Without the check, none of it would be noticed -------------------------------------------------------------------
def test_these_tests_see_the_check_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    damage(EDITED["source"])
    for module in ("memory.search.retrieval", "memory.index.stored_macs", "memory.index.stored_rows"):
        monkeypatch.setattr(f"{module}.refuse_altered", lambda *args, **options: None)
    monkeypatch.setattr(row_integrity, "refuse_altered", lambda *args, **options: None)
    assert sorted(texts(recall(ALICE, "Apollo"))) == ["Apollo", "Gemini"]
    assert list_chunks(user_id=ALICE, limit=5).integrity_failures == 0
    assert ALTERED not in kinds()
