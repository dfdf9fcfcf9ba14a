"""Chunks around a match: on demand, in the order of the document, within the bytes of an answer."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection

from memory import metrics
from memory.documents.document import Chunk, Document
from memory.erasure import delete_chunk, delete_document
from memory.indexing import index_documents
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.sealing.codecs import SealedBytes
from memory.search import retrieval, surroundings
from memory.search.retrieval import QueryResult, query_memories
from tests.factories import ALICE, API, BOB, person_client, remember, vector, vector_of
from tests.memory.rotation.hmac_rotating import promoted

pytestmark = pytest.mark.django_db
LETTERS = "abcdefgh"


def ask(text: str, context: int, *, top_k: int = 1, user_id: str = ALICE) -> QueryResult:
    return query_memories(
        user_id=user_id, query="?", embedding=vector_of(text), top_k=top_k, context=context, rerank=False
    )


def around(result: QueryResult) -> list[tuple[str, str, str]]:
    """Before, match, after, as letters."""
    return [
        ("".join(c.text for c in m.context.before), m.text, "".join(c.text for c in m.context.after))
        for m in result.matches
        if m.context
    ]


@pytest.mark.parametrize(
    ("text", "context", "expected"),
    [
        ("d", 1, ("c", "d", "e")),
        ("d", 2, ("bc", "d", "ef")),
        ("a", 2, ("", "a", "bc")),
        ("h", 3, ("efg", "h", "")),
        ("d", 10, ("abc", "d", "efgh")),
    ],
)
def test_so_many_before_and_after(text: str, context: int, expected: tuple[str, str, str]) -> None:
    remember(ALICE, "doc", *LETTERS, metadata={"k": 1})
    remember(ALICE, "other", *"xyz")
    remember(BOB, "doc", *"uvw")
    result = ask(text, context)
    assert around(result) == [expected]
    assert not result.truncated and result.integrity_failures == 0
    assert all(chunk.metadata == {"k": 1} for m in result.matches if m.context for chunk in m.context.after)


def test_none_unless_asked_for() -> None:
    remember(ALICE, "doc", *LETTERS)
    assert ask("d", 0).matches[0].context is None
    assert ask("nobody", 2, user_id=BOB).matches == []


def test_a_gap_is_stepped_over_and_filters_do_not_apply() -> None:
    ids = remember(ALICE, "doc", *LETTERS)
    for gone in (ids[2], ids[4]):
        delete_chunk(user_id=ALICE, chunk_id=gone)
    assert around(ask("d", 2)) == [("ab", "d", "fg")]


def test_what_expired_is_not_around() -> None:
    remember(ALICE, "doc", *LETTERS)
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(chunk_index=2).update(expires_at=datetime(2000, 1, 1, tzinfo=UTC))
    assert around(ask("d", 1)) == [("b", "d", "e")]


def test_context_comes_with_its_author_and_time() -> None:
    chunks = tuple(Chunk(text, vector_of(text), author=text.upper()) for text in "ab")
    index_documents(user_id=ALICE, documents=[Document("talk", "", chunks, title="Team")])
    (match,) = ask("a", 1).matches
    assert match.context and [(c.author, c.title) for c in match.context.after] == [("B", "Team")]


def test_the_nearest_come_first_where_there_is_no_room_for_all(settings: Any) -> None:
    remember(ALICE, "doc", *(letter * 1_000 for letter in LETTERS))
    settings.MEMORY_MAX_ANSWER_BYTES = 3_500  # of the match and two more
    before = metrics.OPENS._value.get()
    result = ask("d" * 1_000, 3)
    assert [(b[:1], m[:1], a[:1]) for b, m, a in around(result)] == [("c", "d", "e")]
    assert result.truncated and len(result.matches) == 1
    settings.MEMORY_MAX_ANSWER_BYTES = 1_000
    result = ask("d" * 1_000, 3)
    assert [(b, a) for b, _, a in around(result)] == [("", "")] and result.truncated
    assert metrics.OPENS._value.get() - before < 3 * 2 * 24 + 3 * 2


def test_what_does_not_open_is_left_out_and_counted_once() -> None:
    ids = remember(ALICE, "doc", *"abc")
    with tenant_transaction(ALICE):
        MemoryChunk.objects.filter(id=ids[1]).update(text_cipher=SealedBytes(b"x" * 40))
    result = ask("a", 1, top_k=3)  # b is a candidate that does not open, and is beside both others
    assert around(result) == [("", "a", ""), ("", "c", "")]
    assert result.integrity_failures == 1


def test_a_document_that_goes_away_between_search_and_context(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(ALICE, "doc", *LETTERS)
    real = retrieval.with_surroundings

    def gone(*args: Any, **kwargs: Any) -> Any:
        delete_document(user_id=ALICE, doc_id="doc")
        return real(*args, **kwargs)

    monkeypatch.setattr(retrieval, "with_surroundings", gone)
    assert around(ask("d", 2)) == [("", "d", "")]


def test_while_several_hmac_keys_are_accepted() -> None:
    remember(ALICE, "doc", *LETTERS)
    with promoted():
        assert around(ask("d", 1)) == [("c", "d", "e")]


@pytest.mark.django_db(transaction=True)
def test_rows_are_read_along_the_documents_places() -> None:
    (match, *_) = remember(ALICE, "doc", *LETTERS)
    remember(ALICE, "other", *(f"text {number}" for number in range(300)))
    # Of a table that looks empty any index is as good as another.
    with connection.connect_as("owner") as owner:  # type: ignore[attr-defined]
        owner.execute("ANALYZE memory_chunks")
    with tenant_transaction(ALICE, planner=surroundings.PINS) as user_hash, connection.cursor() as cursor:
        parameters = {"user_hash": user_hash, "ids": [match], "most": 2, "room": 9}
        cursor.execute(f"EXPLAIN {surroundings.AROUND.replace('%(ids)b', '%(ids)s')}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert plan.count("using memory_chunks_document") == 2 and "Seq Scan" not in plan, plan


def test_over_http() -> None:
    client = person_client()
    chunks = [{"text": text, "embedding": vector(place)} for place, text in enumerate("abc")]
    body = {"doc_id": "talk", "chunks": chunks}
    assert client.post(f"{API}/memories/index", body, content_type="application/json").status_code == 200

    def post(**extra: Any) -> Any:
        body = {"query": "?", "embedding": vector(1), "top_k": 1, "rerank": False, **extra}
        return client.post(f"{API}/memories/query", body, content_type="application/json")

    (match,) = post(context=1).json()["matches"]
    assert [c["text"] for c in match["context"]["before"]] == ["a"]
    assert [c["chunk_index"] for c in match["context"]["after"]] == [2]
    assert post().json()["matches"][0]["context"] is None
    for wrong in (-1, 11, "1", True, None):
        answer = post(context=wrong)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, "context")
