"""How many candidates the cross-encoder is asked about."""

from pytest_django import Settings

from rerank import pool_size, rerank_now
from rerank.pool import affordable
from tests.rerank.factories import FakeBackend, passages, serve_with


def test_the_pool_is_twice_the_answer_and_24_at_least(settings: Settings) -> None:
    assert [pool_size(top_k) for top_k in (1, 12, 13, 100)] == [24, 24, 26, 200]
    settings.RERANK_CANDIDATES = 12
    assert [pool_size(top_k) for top_k in (1, 100)] == [12, 12]


def test_24_candidates_of_any_length_are_affordable_by_default() -> None:
    assert affordable("q", ["x" * 100_000] * 30) == 24
    assert affordable("q", ["short"] * 200) == 200
    assert affordable("q", []) == 0


def test_what_cannot_be_paid_for_follows_in_its_own_order(settings: Settings) -> None:
    settings.RERANK_POOL_TOKENS = 512
    backend = FakeBackend()
    serve_with(backend)
    texts = [text.rjust(199) for text in passages(20)]  # 1 + 199 characters: 51 tokens by the estimate
    reranking = rerank_now("q", texts)
    assert reranking.order == (*range(9, -1, -1), *range(10, 20))
    assert reranking.scores == (*(float(place) for place in range(10)), *[None] * 10)
    assert sum(backend.batches) == 10
    assert {result.reranked for result in reranking.results(texts)} == {True}


def test_one_candidate_is_always_affordable(settings: Settings) -> None:
    settings.RERANK_POOL_TOKENS = 1
    assert affordable("q", ["x" * 100_000] * 30) == 1
