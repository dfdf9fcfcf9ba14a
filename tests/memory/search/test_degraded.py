"""A question that has no embedding in time is answered by keywords alone, and says so; a write never degrades."""

from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from memory import indexing, metrics
from memory.documents.document import Chunk, Document
from memory.exceptions import EmbeddingModelUnavailable, NoEmbedding
from memory.search import retrieval
from memory.search.retrieval import query_memories
from tests.factories import ALICE, API, person_client, remember, texts

pytestmark = pytest.mark.django_db


@pytest.fixture
def no_embedding(monkeypatch: pytest.MonkeyPatch) -> Callable[[NoEmbedding], None]:
    def refuse(reason: NoEmbedding) -> None:
        def embed(query: Any) -> Any:
            raise EmbeddingModelUnavailable("for the test", reason)

        monkeypatch.setattr(retrieval, "embed_query", embed)
        monkeypatch.setattr(indexing, "embed_passages", embed)

    return refuse


def ask(query: str) -> retrieval.QueryResult:
    return query_memories(user_id=ALICE, query=query, top_k=5)


@pytest.mark.parametrize("reason", list(NoEmbedding))
def test_keywords_answer_alone_and_the_reason_is_told_and_counted(reason: NoEmbedding, no_embedding: Any) -> None:
    remember(ALICE, "a", "The spare key is under the flower pot.", "Milo is a cat.", "It rained in Lisbon.")
    no_embedding(reason)
    before = metrics.DEGRADED.labels(reason.value)._value.get()
    result = ask("where is the spare key")
    assert texts(result.matches)[0] == "The spare key is under the flower pot."
    assert "It rained in Lisbon." not in texts(result.matches)  # holds none of the words, and stands beside no such one
    assert result.degraded is reason
    assert metrics.DEGRADED.labels(reason.value)._value.get() == before + 1


def test_a_question_without_a_known_word_finds_nothing_rather_than_anything(no_embedding: Any) -> None:
    remember(ALICE, "a", "The spare key is under the flower pot.")
    no_embedding(NoEmbedding.TIMEOUT)
    assert ask("zeppelin").matches == []


def test_an_answer_with_an_embedding_is_not_degraded(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.factories import vector_of

    monkeypatch.setattr(retrieval, "embed_query", vector_of)
    remember(ALICE, "a", "The spare key.")
    assert ask("The spare key.").degraded is None


def test_without_a_keyword_index_there_is_nothing_to_answer_with(no_embedding: Any, settings: Settings) -> None:
    settings.MEMORY_LEXICAL_INDEX = False
    no_embedding(NoEmbedding.TIMEOUT)
    with pytest.raises(EmbeddingModelUnavailable):
        ask("where is the spare key")


def test_a_write_never_degrades(no_embedding: Any) -> None:
    no_embedding(NoEmbedding.TIMEOUT)
    with pytest.raises(EmbeddingModelUnavailable):
        indexing.index_documents(user_id=ALICE, documents=[Document(doc_id="a", source="", chunks=(Chunk("a text"),))])


@pytest.mark.parametrize("reason", list(NoEmbedding))
def test_over_http(reason: NoEmbedding, no_embedding: Any) -> None:
    no_embedding(reason)
    client = person_client()
    answer = client.post(f"{API}/memories/query", {"query": "anything"}, content_type="application/json")
    assert (answer.status_code, answer.json()["degraded"]) == (200, reason.value)
    refused = client.post(f"{API}/memories/index", {"text": "a text"}, content_type="application/json")
    assert refused.status_code == 503 and int(refused["Retry-After"]) > 0
    assert refused["Content-Type"] == "application/problem+json"
