"""Changes of stored memories: what they change, what they leave, and that all that a memory is found by follows."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from rest_framework.exceptions import ValidationError

from keys.generation import generate_key
from memory.exceptions import ChunkNotFound, DocumentTooLarge, IntegrityFailure
from memory.index import tail
from memory.models import MemoryChunk, MemoryTerm, MemoryVector, Tenant
from memory.rls import tenant_transaction
from memory.rotation.integrity import inspect_all
from memory.sealing.codecs import SealedBytes
from memory.verbs import patching
from tests.factories import ALICE, BOB, recall, remember, texts, vector_of
from tests.memory.rotation.rotating import promoted
from tests.memory.verbs.changes import Embedder, change, change_document, chunk, document_of

pytestmark = pytest.mark.django_db


def updated_at(chunk_id: Any) -> datetime:
    return chunk(chunk_id).updated_at


def counted() -> int:
    with tenant_transaction(ALICE):
        assert MemoryChunk.objects.count() == MemoryVector.objects.count() == Tenant.objects.get().chunk_count
        return MemoryChunk.objects.count()


# --- A chunk ---------------------------------------------------------------------------------------------------------
def test_metadata_merges_and_nothing_is_embedded(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": 1, "b": {"c": 1, "d": [1, 2]}, "e": 5})
    before = chunk(chunk_id)
    after = change(chunk_id, metadata={"b": {"c": None, "d": [3], "n": {"x": None}}, "e": None, "f": None})
    assert after == chunk(chunk_id)
    assert after.metadata == {"a": 1, "b": {"d": [3], "n": {}}}
    assert (after.id, after.created_at, after.text) == (before.id, before.created_at, before.text)
    assert after.updated_at > before.updated_at
    assert embedder.texts == []
    assert texts(recall(ALICE, "hello")) == ["hello"]


def test_null_empties_metadata_and_a_list_is_no_metadata() -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": 1})
    for wrong in ([], "x", 1, True):
        with pytest.raises(ValidationError) as caught:
            change(chunk_id, metadata=wrong)
        assert list(caught.value.detail) == ["metadata"]
    assert chunk(chunk_id).metadata == {"a": 1}
    assert change(chunk_id, metadata=None).metadata == chunk(chunk_id).metadata == {}


@pytest.mark.parametrize(("before", "after"), [(1, True), (True, 1), (0, False), (1, 1.0)])
def test_what_python_calls_equal_is_still_changed(before: Any, after: Any) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"k": before})
    change(chunk_id, metadata={"k": after})
    assert repr(chunk(chunk_id).metadata["k"]) == repr(after)


def test_a_patch_that_changes_nothing_writes_nothing(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": 1})
    before = chunk(chunk_id)
    for patch in ({}, {"text": "hello"}, {"metadata": {"a": 1, "gone": None}}, {"metadata": {}}):
        assert change(chunk_id, **patch) == before == chunk(chunk_id)
    assert embedder.texts == []


def test_new_text_is_embedded_once_and_found_by_its_meaning_and_its_words(embedder: Embedder) -> None:
    (chunk_id, other) = remember(ALICE, "doc", "the violin", "the river", metadata={"a": 1})
    before = chunk(chunk_id)
    after = change(chunk_id, text="a passport", metadata={"b": 2})
    assert (after.text, after.metadata, after.chunk_index) == ("a passport", {"a": 1, "b": 2}, 0)
    assert (after.id, after.created_at) == (before.id, before.created_at)
    assert embedder.texts == ["a passport"]
    best, *_ = recall(ALICE, "a passport")
    assert (best.id, best.retrieval_score) == (chunk_id, pytest.approx(1.5, abs=1e-6))
    assert all(match.retrieval_score < 0.5 for match in recall(ALICE, "violin"))
    assert [each.id for each in document_of("doc")] == [chunk_id, other]
    assert counted() == 2


def test_a_clients_own_embedding_is_taken(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    change(chunk_id, text="bonjour", embedding=vector_of("elsewhere").tolist())
    change(chunk_id, metadata={"later": True})
    assert recall(ALICE, "elsewhere")[0].retrieval_score == pytest.approx(1, abs=1e-6)
    change(chunk_id, embedding=vector_of("moved").tolist())
    assert recall(ALICE, "moved")[0].retrieval_score == pytest.approx(1, abs=1e-6)
    assert embedder.texts == []


def test_labels_follow(settings: Any) -> None:
    settings.MEMORY_FILTERABLE_METADATA = ["mood", "tag"]
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"mood": "good", "tag": ["a", "b"], "other": 1})
    change(chunk_id, metadata={"mood": "bad", "tag": ["b"], "other": 2})
    assert texts(recall(ALICE, "hello", metadata={"mood": "bad", "tag": "b"})) == ["hello"]
    assert recall(ALICE, "hello", metadata={"mood": "good"}) == recall(ALICE, "hello", metadata={"tag": "a"}) == []
    change(chunk_id, metadata=None)
    assert recall(ALICE, "hello", metadata={"mood": "bad"}) == []


def test_postings_of_a_large_tenant_follow(settings: Any, embedder: Embedder) -> None:
    settings.MEMORY_EXACT_SCAN_MAX = 2
    ids = remember(ALICE, "doc", "violin", "river", "garden", "tomato")
    tail.index_tail(user_id=ALICE, limit=100)
    with tenant_transaction(ALICE):
        before = set(MemoryTerm.objects.filter(id=ids[0]).values_list("term", flat=True))
    change(ids[0], text="passport")
    with tenant_transaction(ALICE):
        after = set(MemoryTerm.objects.filter(id=ids[0]).values_list("term", flat=True))
        assert MemoryVector.objects.filter(outgrown=True).count() == 4
    assert before and after and not before & after
    assert inspect_all().findings == []


def test_what_is_not_there_or_not_ones_own_is_not_found(embedder: Embedder) -> None:
    (chunk_id,) = remember(BOB, "doc", "Bob's")
    for missing in (chunk_id, uuid4()):
        with pytest.raises(ChunkNotFound):
            change(missing, text="mine")
    with pytest.raises(ChunkNotFound):
        change_document("doc", {"text": "mine"})
    assert embedder.texts == []


def test_metadata_grows_no_larger_than_it_may_be(settings: Any) -> None:
    settings.MEMORY_MAX_METADATA_BYTES = 60
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": "x" * 30})
    with pytest.raises(DocumentTooLarge) as caught:
        change(chunk_id, metadata={"b": "x" * 30})
    assert caught.value.field == "metadata"
    assert chunk(chunk_id).metadata == {"a": "x" * 30}
    assert change(chunk_id, metadata={"a": None, "b": "x" * 30}).metadata == {"b": "x" * 30}


def test_a_chunk_that_does_not_open_is_not_changed() -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(id=chunk_id).update(text_cipher=SealedBytes(b"x" * 40))
    with pytest.raises(IntegrityFailure):
        change(chunk_id, metadata={"a": 1})


def test_a_row_under_the_old_key_goes_under_the_new_one_as_a_whole() -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": 1})
    new = generate_key()
    with promoted(new):
        change(chunk_id, metadata={"b": 2})
    with promoted(new, accept_old=False) as (_, key), tenant_transaction(ALICE):
        row = MemoryChunk.objects.get()
        assert row.enc_key_id == key.key_id
        assert (row.text, row.metadata) == ("hello", {"a": 1, "b": 2})
        assert row.embedding == pytest.approx(vector_of("hello"))


def test_metadata_alone_touches_neither_text_nor_vectors() -> None:
    def others() -> list[Any]:
        with tenant_transaction(ALICE), connection.cursor() as cursor:
            cursor.execute(
                "SELECT c.text_cipher, c.emb_cipher, v.xmin::text FROM memory_chunks c JOIN memory_vectors v USING (id)"
            )
            return cursor.fetchall()

    (chunk_id,) = remember(ALICE, "doc", "hello", metadata={"a": 1})
    before = others()
    change(chunk_id, metadata={"a": 2})
    assert others() == before


# --- Its context -----------------------------------------------------------------------------------------------------
def test_author_and_time_change_what_is_embedded_and_null_takes_them_away(embedder: Embedder) -> None:
    (chunk_id,) = remember(ALICE, "doc", "the projector", metadata={"a": 1})
    change(chunk_id, author="Alice", occurred_at="2022-06-05T01:00:00+02:00")
    after = chunk(chunk_id)
    assert (after.author, after.text, after.metadata) == ("Alice", "the projector", {"a": 1})
    assert after.occurred_at and after.occurred_at.isoformat() == "2022-06-05T01:00:00+02:00"
    assert recall(ALICE, "5 June 2022 · Alice: the projector")[0].explanation is None
    change(chunk_id, occurred_at="2022-06-04T23:00:00Z")  # the same moment, of the day before
    change(chunk_id, author=None, occurred_at=None)
    assert (chunk(chunk_id).author, chunk(chunk_id).occurred_at) == ("", None)
    assert embedder.texts == [
        "5 June 2022 · Alice: the projector",
        "4 June 2022 · Alice: the projector",
        "the projector",
    ]
    assert inspect_all().findings == []


def test_a_title_and_an_end_of_a_document_change_for_all_its_chunks(embedder: Embedder) -> None:
    ids = remember(ALICE, "doc", "one", "two")
    done = change_document("doc", {"title": "Team", "expires_at": "2999-01-01T00:00:00Z"})
    assert (done.chunk_ids, done.embedded) == (ids, 2)
    assert [(each.title, each.expires_at and each.expires_at.year) for each in document_of("doc")] == [
        ("Team", 2999)
    ] * 2
    assert change_document("doc", {"title": None, "expires_at": None}).embedded == 2
    assert [(each.title, each.expires_at) for each in document_of("doc")] == [("", None)] * 2
    change_document("doc", {"expires_at": "2000-01-01T00:00:00Z"})
    assert document_of_or_none("doc") is None
    with pytest.raises(ChunkNotFound):
        change_document("doc", {"expires_at": None})


def document_of_or_none(doc_id: str) -> Any:
    try:
        return document_of(doc_id)
    except ChunkNotFound:
        return None


def test_an_end_alone_embeds_nothing(embedder: Embedder) -> None:
    remember(ALICE, "doc", "one")
    assert change_document("doc", {"expires_at": "2999-01-01T00:00:00Z"}).embedded == 0
    assert embedder.texts == []


@pytest.mark.parametrize("time", ["2022-06-05T10:00:00", "0000-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "soon", 5])
def test_times_that_are_none_are_named(time: Any) -> None:
    (chunk_id,) = remember(ALICE, "doc", "hello")
    with pytest.raises(ValidationError) as caught:
        change(chunk_id, occurred_at=time)
    assert list(caught.value.detail) == ["occurred_at"]
    assert chunk(chunk_id).occurred_at is None


# --- A document ------------------------------------------------------------------------------------------------------
def test_metadata_of_a_document_merges_into_each_of_its_chunks(embedder: Embedder) -> None:
    ids = remember(ALICE, "doc", "one", "two", metadata={"a": 1})
    remember(ALICE, "other", "three", metadata={"a": 1})
    change(ids[1], metadata={"own": True})
    done = change_document("doc", {"metadata": {"a": None, "b": 2}})
    assert (done.chunk_ids, done.embedded, embedder.texts) == (ids, 0, [])
    assert [each.metadata for each in document_of("doc")] == [{"b": 2}, {"own": True, "b": 2}]
    assert document_of("other")[0].metadata == {"a": 1}


def test_a_source_changes_and_is_filtered_by(embedder: Embedder) -> None:
    ids = remember(ALICE, "doc", "one", "two", source="chat")
    assert change_document("doc", {"source": "mail"}).chunk_ids == ids
    assert texts(recall(ALICE, "one", source="mail")) == ["one", "two"]
    assert recall(ALICE, "one", source="chat") == []
    assert embedder.texts == []


PARAGRAPHS = [f"Paragraph {number} tells of something. " * 12 for number in range(6)]


def split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every paragraph a chunk."""
    monkeypatch.setattr("memory.documents.splitting.split_text", lambda text, *header: iter(text.split("\n\n")))


@pytest.mark.parametrize(
    ("after", "kept", "embedded"),
    [
        (["a", "b", "c"], [0, 1, 2], 0),
        (["a", "x", "c"], [0, 1, 2], 1),
        (["x", "a", "b", "c"], [None, 0, 1, 2], 1),
        (["b", "c"], [1, 2], 0),
        (["c", "a"], [2, 0], 0),
        (["x", "y", "z", "x", "v"], [0, 1, 2, None, None], 4),
        (["a", "a"], [0, 1], 1),
        (["x"], [0], 1),
    ],
)
def test_text_is_split_anew_and_only_what_is_new_is_embedded(
    after: list[str], kept: list[int | None], embedded: int, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    split(monkeypatch)
    ids = remember(ALICE, "doc", "a", "b", "c", metadata={"k": 1})
    since = {each.created_at for each in document_of("doc")}
    done = change_document("doc", {"text": "\n\n".join(after)})
    chunks = document_of("doc")
    assert [each.text for each in chunks] == after
    assert [each.chunk_index for each in chunks] == list(range(len(after)))
    assert [each.id for each in chunks] == done.chunk_ids
    for chunk_id, old in zip(done.chunk_ids, kept, strict=True):
        assert chunk_id == ids[old] if old is not None else chunk_id not in ids
    assert {each.created_at for each in chunks} == since
    assert all(each.metadata == {"k": 1} for each in chunks)
    assert (len(embedder.texts), done.embedded) == (embedded, embedded)
    assert counted() == len(after)
    assert inspect_all().findings == []
    assert {texts(recall(ALICE, text))[0] for text in after} == set(after)


def test_the_text_of_a_long_document_is_really_split(embedder: Embedder) -> None:
    remember(ALICE, "doc", "short")
    done = change_document("doc", {"text": "\n\n".join(PARAGRAPHS)})
    assert len(done.chunk_ids) > 1 and done.embedded == len(done.chunk_ids)
    assert " ".join(each.text for each in document_of("doc")).split() == "\n\n".join(PARAGRAPHS).split()


def test_a_document_of_too_many_chunks_is_refused(settings: Any) -> None:
    remember(ALICE, "doc", "one", "two", "three")
    settings.MEMORY_MAX_CHUNKS = 2
    with pytest.raises(DocumentTooLarge, match="doc_id: .* more than 2 chunks"):
        change_document("doc", {"metadata": {"a": 1}})
    assert [each.metadata for each in document_of("doc")] == [{}, {}, {}]


def test_one_chunk_that_does_not_open_keeps_the_whole_document_as_it_is() -> None:
    good, bad = remember(ALICE, "doc", "good", "bad")
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(id=bad).update(meta_cipher=SealedBytes(b"x" * 40))
    with pytest.raises(IntegrityFailure):
        change_document("doc", {"metadata": {"a": 1}})
    assert chunk(good).metadata == {}


def test_texts_that_others_keep_changing_are_given_up(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patching, "ATTEMPTS", 3)
    (chunk_id,) = remember(ALICE, "doc", "hello")
    monkeypatch.setattr("memory.verbs.planned_chunks.PlannedChunk.vector", lambda *args: None)
    with pytest.raises(patching.ChangedMeanwhile):
        change(chunk_id, text="new")
    assert chunk(chunk_id).text == "hello"
