"""The cross-encoder's engine as many requests at once use it."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pytest_django import Settings

from rerank import rerank, rerank_now
from tests.rerank.factories import FakeBackend, score_of, serve_with


def test_scores_never_reach_another_request_under_threads_and_asyncio(settings: Settings) -> None:
    """Every pair has one answer of its own: any mix-up shows."""
    settings.RERANK_QUEUE_SIZE = 10_000
    serve_with(FakeBackend())

    def texts(request: int) -> list[str]:
        return [f"x{'y' * (place * 7 % 60)} ={(place * 37 + request) % 101}" for place in range(1 + request % 24)]

    def check(request: int, found: Sequence[float | None]) -> None:
        query = f"request ={request * 1000}"
        assert list(found) == [score_of(query, text) for text in texts(request)]

    def from_thread(request: int) -> None:
        reranking = rerank_now(f"request ={request * 1000}", texts(request), timeout_ms=20_000)
        assert reranking.scores is not None
        check(request, reranking.scores)

    async def from_loop() -> None:
        async def one(request: int) -> None:
            results = await rerank(f"request ={request * 1000}", texts(request), 20_000)
            check(request, [result.score for result in sorted(results, key=lambda result: result.index)])

        await asyncio.gather(*(one(request) for request in range(300)))

    with ThreadPoolExecutor(64) as pool:
        loop = threading.Thread(target=lambda: failures.append(_error_of(from_loop)))
        failures: list[BaseException | None] = []
        loop.start()
        list(pool.map(from_thread, range(300, 900)))
        loop.join()
    assert failures == [None]


def _error_of(coroutine: Any) -> BaseException | None:
    try:
        asyncio.run(coroutine())
    except BaseException as error:
        return error
    return None
