"""Titles, authors and times on their way through the service: stored, read, found, moved to other keys."""

import io
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command
from django.db import NotSupportedError, connection

from memory import indexing
from memory.documents.document import Chunk, Document
from memory.documents.lines import parse_line
from memory.erasure import erase_user
from memory.exceptions import InvalidDocument
from memory.index import saved_chunks, tenant_reindex
from memory.indexing import index_documents
from memory.listing import get_chunk, list_chunks
from memory.models import MemoryChunk, MemoryVector
from memory.rls import tenant_transaction
from memory.rotation.findings import UNREADABLE
from memory.rotation.integrity import inspect_all
from memory.search.retrieval import query_memories
from tests.factories import ALICE, API, person_client, recall, vector, vector_of
from tests.memory.rotation import hmac_rotating, rotating

pytestmark = pytest.mark.django_db(transaction=True)

BERLIN = timezone(timedelta(hours=2))
MEETING = datetime(2022, 6, 5, 0, 30, tzinfo=BERLIN)  # in UTC it is the day before
REPLY = datetime(2022, 6, 7, 12, tzinfo=UTC)
GONE = datetime(2999, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the model was asked to embed."""
    asked: list[str] = []

    def embed(passages: Any) -> np.ndarray:
        asked.extend(passages)
        return np.stack([vector_of(text) for text in passages])

    for module in (indexing, saved_chunks, tenant_reindex):
        monkeypatch.setattr(module, "embed_passages", embed)
    return asked


@pytest.fixture(autouse=True)
def _everything_agrees(embedded: list[str]) -> Any:
    """After every test the index says what the seals say."""
    yield
    assert [str(finding) for finding in inspect_all().findings] == []


def meeting(**fields: Any) -> Document:
    chunks = (Chunk("I adopted a cat.", author="Alice"), Chunk("Which name?", author="Bob", occurred_at=REPLY))
    return Document("meeting", "chat", chunks, {"room": 5}, "Team meeting", MEETING, GONE, **fields)


def store() -> list[Any]:
    (stored,) = index_documents(user_id=ALICE, documents=[meeting()])
    return stored.chunk_ids


EMBEDDED = ["5 June 2022 · Team meeting · Alice: I adopted a cat.", "7 June 2022 · Team meeting · Bob: Which name?"]


def contexts(chunks: Any) -> list[tuple[Any, ...]]:
    return sorted((each.text, each.title, each.author, each.occurred_at, each.expires_at) for each in chunks)


EXPECTED = [
    ("I adopted a cat.", "Team meeting", "Alice", MEETING, GONE),
    ("Which name?", "Team meeting", "Bob", REPLY, GONE),
]


def test_the_header_is_embedded_and_the_text_is_returned(embedded: list[str]) -> None:
    ids = store()
    assert embedded == EMBEDDED
    assert contexts(recall(ALICE, EMBEDDED[0])) == EXPECTED
    assert contexts(list_chunks(user_id=ALICE, limit=9).chunks) == EXPECTED
    first = get_chunk(user_id=ALICE, chunk_id=ids[0])
    assert (
        contexts([first]) == EXPECTED[:1]
        and first.occurred_at
        and first.occurred_at.isoformat() == ("2022-06-05T00:30:00+02:00")
    )


@pytest.mark.parametrize("word", ["june", "meeting", "alice"])
def test_the_header_is_found_by_its_words(word: str) -> None:
    store()
    asked = query_memories(user_id=ALICE, query=word, embedding=vector(3), top_k=1, explain=True).matches[0]
    assert asked.explanation and asked.explanation.lexical == 1
    assert word != "alice" or asked.text == "I adopted a cat."


def test_nothing_of_it_stands_unsealed_in_the_row() -> None:
    store()
    with tenant_transaction(ALICE):
        row = MemoryChunk.objects.values().order_by("chunk_index")[0]
    assert b"Alice" not in row["context_cipher"] and "Alice" not in str(row) and "meeting" not in str(row["source"])


@pytest.mark.usefixtures("readable_names")
def test_without_any_context_there_is_no_seal(embedded: list[str]) -> None:
    index_documents(user_id=ALICE, documents=[Document("note", "", (Chunk("plain"),))])
    assert embedded == ["plain"]
    with tenant_transaction(ALICE):
        assert MemoryChunk.objects.get().context_cipher is None


def test_the_cross_encoder_reads_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    from memory.search import reranking
    from rerank import Reranking, SkipReason

    read: list[list[str]] = []

    def rerank(query: str, texts: list[str], **options: Any) -> Reranking:
        read.append(texts)
        return Reranking.skipped(len(texts), SkipReason.DISABLED)

    monkeypatch.setattr(reranking, "rerank_now", rerank)
    store()
    recall(ALICE, EMBEDDED[0])
    assert sorted(read[0]) == EMBEDDED


def test_a_rotation_of_the_encryption_key_takes_the_context_along() -> None:
    store()
    with rotating.promoted() as (old, new):
        call_command("rotate_encryption_key", stdout=io.StringIO(), verbosity=0)
        with tenant_transaction(ALICE) as user_hash:
            seals = list(MemoryChunk.objects.values_list("context_cipher", flat=True))
        assert len(seals) == 2 and all(rotating.opens(new, user_hash, seal) for seal in seals)
        assert not any(rotating.opens(old, user_hash, seal) for seal in seals)
        assert contexts(recall(ALICE, EMBEDDED[0])) == EXPECTED
        erase_user(user_id=ALICE)


def test_a_move_to_another_hash_takes_the_context_along() -> None:
    store()
    with hmac_rotating.promoted():
        call_command("rotate_hmac_key", stdout=io.StringIO(), verbosity=0)
        assert contexts(recall(ALICE, EMBEDDED[0])) == EXPECTED
        assert [str(finding) for finding in inspect_all().findings] == []
        erase_user(user_id=ALICE)


def test_a_context_in_the_place_of_another_seal_is_noticed() -> None:
    store()
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute("UPDATE memory_chunks SET context_cipher = text_cipher WHERE chunk_index = 0")
    assert [finding.kind for finding in inspect_all().findings] == [UNREADABLE]
    assert list_chunks(user_id=ALICE, limit=9).integrity_failures == 1
    assert query_memories(user_id=ALICE, query="", embedding=vector(), top_k=9).integrity_failures == 1
    erase_user(user_id=ALICE)


def test_a_reindex_brings_older_rows_to_the_header(settings: Any, embedded: list[str]) -> None:
    settings.MEMORY_CONTEXT_HEADER = False
    store()
    assert embedded == ["I adopted a cat.", "Which name?"]
    settings.MEMORY_CONTEXT_HEADER = True
    (match,) = query_memories(user_id=ALICE, query="june", embedding=vector(3), top_k=1, explain=True).matches
    assert match.explanation and match.explanation.lexical == 0  # as it was indexed, until the reindex
    out = io.StringIO()
    call_command("reindex", stdout=out, verbosity=0)
    assert "2 rows rebuilt" in out.getvalue() and embedded[2:] == EMBEDDED
    (match,) = query_memories(user_id=ALICE, query="june", embedding=vector(3), top_k=1, explain=True).matches
    assert match.explanation and match.explanation.lexical == 1
    assert contexts(recall(ALICE, EMBEDDED[0])) == EXPECTED


class TestThroughTheORM:
    def save(self, **fields: Any) -> MemoryChunk:
        with tenant_transaction(ALICE):
            return MemoryChunk.objects.create(doc_id="doc", text="I adopted a cat.", **fields)

    def test_a_chunk_is_created_with_its_context(self, embedded: list[str]) -> None:
        self.save(title="Team meeting", author="Alice", occurred_at=MEETING)
        assert embedded == EMBEDDED[:1]
        (match,) = recall(ALICE, EMBEDDED[0])
        assert (match.title, match.author, match.occurred_at) == ("Team meeting", "Alice", MEETING)

    @pytest.mark.parametrize("update_fields", [None, ["occurred_at"]])
    def test_another_time_is_embedded(self, embedded: list[str], update_fields: Any) -> None:
        chunk = self.save(title="Team meeting", author="Alice", occurred_at=REPLY)
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.get(id=chunk.id)
            row.occurred_at = MEETING
            row.save(update_fields=update_fields)
            assert MemoryVector.objects.get().occurred_at == MEETING
        assert embedded[1:] == EMBEDDED[:1]

    @pytest.mark.usefixtures("readable_names")
    def test_another_author_is_embedded_and_no_author_leaves_no_seal(self, embedded: list[str]) -> None:
        chunk = self.save(author="Bob")
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.get(id=chunk.id)
            row.author = ""
            row.save()
            assert MemoryChunk.objects.get().context_cipher is None
        assert embedded == ["Bob: I adopted a cat.", "I adopted a cat."]

    def test_what_stays_is_not_embedded_again(self, embedded: list[str]) -> None:
        chunk = self.save(occurred_at=MEETING)
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.get(id=chunk.id)
            row.expires_at, row.metadata = GONE, {"kind": "note"}
            row.save()
            assert MemoryVector.objects.get().expires_at == GONE
        assert len(embedded) == 1

    def test_many_times_at_once_are_refused(self) -> None:
        self.save()
        with tenant_transaction(ALICE), pytest.raises(NotSupportedError):
            MemoryChunk.objects.update(occurred_at=MEETING)
        with tenant_transaction(ALICE):
            MemoryChunk.objects.update(expires_at=GONE)
            assert MemoryVector.objects.get().expires_at == GONE

    @pytest.mark.parametrize("fields", [{"title": "a\nb"}, {"author": "a\0"}, {"occurred_at": datetime(2022, 6, 5)}])  # noqa: DTZ001
    def test_what_cannot_be_stored_is_named(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidDocument) as caught:
            self.save(**fields)
        assert [caught.value.field] == list(fields)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"title": "a\nb"}, "documents[0].title"),
        ({"occurred_at": datetime(2022, 6, 5)}, "documents[0].occurred_at"),  # noqa: DTZ001
        ({"expires_at": "tomorrow"}, "documents[0].expires_at"),
        ({"chunks": (Chunk("a", author="\0"),)}, "documents[0].chunks[0].author"),
        ({"chunks": (Chunk("a", occurred_at=datetime(2022, 6, 5)),)}, "documents[0].chunks[0].occurred_at"),  # noqa: DTZ001
    ],
)
def test_a_document_that_cannot_be_stored_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        index_documents(
            user_id=ALICE, documents=[Document(**{"doc_id": "d", "source": "", "chunks": (Chunk("a"),), **fields})]
        )
    assert caught.value.field == field


class TestOverHTTP:
    def post(self, client: Any, **body: Any) -> Any:
        return client.post(f"{API}/memories/index", body, content_type="application/json")

    def test_a_conversation_comes_back_as_it_was_given(self) -> None:
        client = person_client()
        turn = {"text": "I adopted a cat.", "author": "Alice", "occurred_at": "2022-06-05T00:30:00+02:00"}
        body = {"doc_id": "meeting", "title": "Team meeting", "chunks": [turn], "expires_at": "2999-01-01T00:00:00Z"}
        assert self.post(client, **body).status_code == 200
        (memory,) = client.get(f"{API}/memories").json()["memories"]
        shown = {name: memory[name] for name in (*turn, "title", "expires_at")}
        assert shown == {**turn, "title": "Team meeting", "expires_at": "2999-01-01T00:00:00Z"}
        assert client.get(f"{API}/memories/{memory['id']}").json() == memory

    def test_a_text_of_its_own_time(self) -> None:
        client = person_client()
        assert self.post(client, text="Moon landing", occurred_at="1969-07-20T20:17:40Z").status_code == 200
        (memory,) = client.get(f"{API}/memories").json()["memories"]
        assert (memory["occurred_at"], memory["title"], memory["author"], memory["expires_at"]) == (
            "1969-07-20T20:17:40Z", "", "", None,
        )  # fmt: skip

    @pytest.mark.parametrize(
        "time",
        [
            "2022-06-05T00:30:00", "2022-06-05", "0000-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "10000-01-01T00:00Z",
            "0001-01-01T00:00:00+09:00", "9999-12-31T23:59:59-01:00", "yesterday", 5, None, "",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("name", ["occurred_at", "expires_at"])
    def test_times_that_are_none(self, name: str, time: Any) -> None:
        response = self.post(person_client(), text="a", **{name: time})
        assert response.status_code == 400
        assert [error["field"] for error in response.json()["errors"]] == [name]

    @pytest.mark.parametrize(
        "time", ["9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", "1582-10-10T00:00:00+00:00"]
    )
    def test_times_at_the_edges(self, time: str) -> None:
        client = person_client()
        assert self.post(client, text="a", occurred_at=time).status_code == 200
        (memory,) = client.get(f"{API}/memories").json()["memories"]
        assert datetime.fromisoformat(memory["occurred_at"]) == datetime.fromisoformat(time)

    @pytest.mark.parametrize(
        ("title", "status"),
        [("x" * 1_000_000, 413), ("a\nb", 400), ("a\0b", 400), (5, 400), (None, 400), ("\ud800", 400)],
    )
    def test_titles_that_are_none(self, title: Any, status: int) -> None:
        response = self.post(person_client(), text="a", title=title)
        assert response.status_code == status
        assert [error["field"] for error in response.json()["errors"]] == ["title"]


def test_a_line_of_an_import_carries_it() -> None:
    document = parse_line(
        b'{"doc_id": "d", "title": "T", "occurred_at": "2022-06-05T00:30+02:00", "expires_at": "2999-01-01T00:00:00Z",'
        b' "chunks": [{"text": "a", "author": "Alice", "occurred_at": "2022-06-07T12:00:00Z"}, "b"]}'
    )
    assert (document.title, document.occurred_at, document.expires_at) == ("T", MEETING, GONE)
    assert document.chunks == (Chunk("a", author="Alice", occurred_at=REPLY), Chunk("b"))
