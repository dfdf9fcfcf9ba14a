"""A query and its passages as a request to the cross-encoder's engine."""

import time
from collections.abc import Callable, Sequence

from django.conf import settings

from inference.engine.backend import EngineLimits
from inference.engine.breaker import CircuitBreaker
from inference.engine.engine import Engine
from inference.engine.jobs import Request
from rerank import config, metrics
from rerank.backends import Backend
from rerank.backends.text_cleaning import clean, estimate_tokens


def make_engine(
    backend: Backend, breaker: CircuitBreaker, *, clock: Callable[[], float] = time.monotonic
) -> Engine[Backend]:
    """An engine, not yet started, with the limits that the settings give."""
    limits = EngineLimits(
        items=settings.RERANK_BATCH_SIZE, tokens=settings.RERANK_BATCH_TOKENS, queue=settings.RERANK_QUEUE_SIZE
    )
    return Engine(backend, breaker, metrics.ENGINE, limits, name="rerank", clock=clock)


def request(backend: Backend, query: object, passages: Sequence[object]) -> Request:
    """At least one passage to be scored for a query. What is no text counts as an empty one; a long one is cut."""
    limits = config.token_limits()
    query = clean(query, limits.query)
    texts = [clean(passage, limits.pair) for passage in passages]
    return Request(
        size=len(texts),
        encode=lambda part: backend.encode(query, texts[part]),
        tokens=sum(estimate_tokens(len(query) + len(text), limits.pair) for text in texts),
    )
