"""The query endpoint over the reranker: better order or the same order, never no answer."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from memory.search import reranking
from memory.search.retrieval import CANDIDATES
from rerank import Reranking, flag, runtime
from tests.factories import API, index, person_client, vector
from tests.rerank.factories import FakeBackend, serve_with

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _reranker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.RERANK_ENABLED = True
    monkeypatch.setattr(flag, "switch", flag.Switch(read=lambda: True))
    runtime.reset()
    yield
    runtime.reset()


@pytest.fixture
def client() -> Client:
    """Somebody with five memories: the further from the question, the higher the cross-encoder's score."""
    client = person_client()
    for place in range(5):
        near = vector()
        near[1] = place / 2
        index(client, f"memory ={place}", embedding=near, doc_id=f"doc-{place}")
    return client


def ask(client: Client, **fields: Any) -> dict[str, Any]:
    body = {"query": "question", "embedding": vector(), **fields}
    response = client.post(f"{API}/memories/query", body, content_type="application/json")
    assert response.status_code == 200, response.content
    return response.json()


def doc_ids(answer: dict[str, Any]) -> list[str]:
    return [match["doc_id"] for match in answer["matches"]]


def test_the_best_of_all_candidates_come_back_with_both_scores(client: Client) -> None:
    serve_with(FakeBackend())
    answer = ask(client, top_k=2)
    assert doc_ids(answer) == ["doc-4", "doc-3"]  # last and last but one by retrieval
    assert (answer["reranked"], answer["skip_reason"]) == (True, None)
    assert [match["score"] for match in answer["matches"]] == [4.0, 3.0]
    assert answer["matches"][0]["retrieval_score"] < answer["matches"][1]["retrieval_score"]
    assert answer["timings_ms"]["rerank"] >= 0


def test_the_cross_encoder_sees_24_candidates_and_their_texts(client: Client) -> None:
    seen: list[str] = []

    def look(pairs: Sequence[Any]) -> None:
        seen.extend(pair.payload[1] for pair in pairs)

    serve_with(FakeBackend(look))
    for place in range(5, 30):
        index(client, f"memory ={place}")
    ask(client, top_k=1)
    assert len(seen) == CANDIDATES == 24
    assert all(text.startswith("memory =") for text in seen)


def test_the_pool_grows_with_the_answer_so_that_reranking_can_choose(client: Client) -> None:
    """Thirty asked for: the best by the cross-encoder is the sixtieth by retrieval, and comes first."""
    serve_with(FakeBackend())
    for place in range(5, 70):
        near = vector()
        near[1] = place / 2
        index(client, f"memory ={place}", embedding=near, doc_id=f"doc-{place}")
    answer = ask(client, top_k=30)
    assert doc_ids(answer) == [f"doc-{place}" for place in range(59, 29, -1)]


def test_what_is_beyond_the_pool_follows_in_retrieval_order(client: Client, settings: Settings) -> None:
    settings.RERANK_CANDIDATES = 3
    serve_with(FakeBackend())
    answer = ask(client)
    assert doc_ids(answer) == ["doc-2", "doc-1", "doc-0", "doc-3", "doc-4"]
    assert [match["score"] for match in answer["matches"]] == [2.0, 1.0, 0.0, None, None]
    assert answer["reranked"]


def test_the_answer_says_which_model_ordered_it_and_how(client: Client, settings: Settings) -> None:
    serve_with(FakeBackend())
    assert ask(client)["reranker"] == {"model": "fake-model", "fusion": "replace"}
    settings.RERANK_FUSION = "weighted"
    assert ask(client)["reranker"] == {"model": "fake-model", "fusion": "weighted"}
    assert ask(client, rerank=False)["reranker"] is None


def test_a_request_may_do_without(client: Client) -> None:
    backend = FakeBackend()
    serve_with(backend)
    answer = ask(client, rerank=False)
    assert doc_ids(answer) == [f"doc-{place}" for place in range(5)]
    assert (answer["reranked"], answer["skip_reason"]) == (False, "disabled")
    assert {match["score"] for match in answer["matches"]} == {None}
    assert backend.batches == []


def test_whatever_the_model_does_the_answer_comes_in_its_retrieval_order(client: Client) -> None:
    def fail(pairs: Sequence[Any]) -> None:
        raise RuntimeError("boom")

    serve_with(FakeBackend(fail))
    answer = ask(client)
    assert doc_ids(answer) == [f"doc-{place}" for place in range(5)]
    assert (answer["reranked"], answer["skip_reason"]) == (False, "error")


def test_a_model_that_is_not_there_is_said_so(client: Client, settings: Settings, tmp_path: Any) -> None:
    settings.RERANK_MODEL = str(tmp_path / "absent")
    runtime.reset()._load_quietly()
    answer = ask(client)
    assert (answer["skip_reason"], len(answer["matches"])) == ("model_unavailable", 5)


def test_fusion_weighs_both_orders(client: Client, settings: Settings) -> None:
    settings.RERANK_FUSION = "rrf"
    serve_with(FakeBackend())
    answer = ask(client)
    assert answer["reranked"]
    assert doc_ids(answer) == ["doc-0", "doc-4", "doc-1", "doc-3", "doc-2"]


def test_weighted_fusion_adds_to_the_retrieval_score(client: Client, settings: Settings) -> None:
    settings.RERANK_FUSION, settings.RERANK_FUSION_WEIGHT = "weighted", 0.2
    serve_with(FakeBackend())
    answer = ask(client)
    kept = [match["retrieval_score"] + 0.2 * (match["score"] - 2.0) / 2.0**0.5 for match in answer["matches"]]
    assert answer["reranked"]
    assert kept == sorted(kept, reverse=True)
    assert doc_ids(answer) == ["doc-1", "doc-4", "doc-0", "doc-2", "doc-3"]


def test_nothing_found_is_neither_reranked_nor_skipped(client: Client) -> None:
    serve_with(FakeBackend())
    answer = ask(client, doc_id="none")
    assert (answer["matches"], answer["reranked"], answer["skip_reason"]) == ([], False, None)


@pytest.mark.parametrize("value", [1, "false", None])
def test_rerank_is_a_boolean(client: Client, value: Any) -> None:
    body = {"query": "q", "embedding": vector(), "rerank": value}
    response = client.post(f"{API}/memories/query", body, content_type="application/json")
    assert response.status_code == 400
    assert "rerank" in response.content.decode()


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_the_model_works(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    open_blocks: list[bool] = []

    def look(query: str, texts: list[str], **scores: Any) -> Reranking:
        open_blocks.append(connection.in_atomic_block)
        return Reranking(tuple(range(len(texts))), (0.0,) * len(texts))

    monkeypatch.setattr(reranking, "rerank_now", look)
    ask(client)
    assert open_blocks == [False]
