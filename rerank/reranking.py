"""The verbs: query and candidates in, a better order out, or the candidates' own order and the reason."""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.conf import settings

from inference.engine.failures import describe
from inference.engine.jobs import Job, Refusal, Refused
from rerank import config, flag, metrics, runtime, scoring
from rerank.backends import ServedModel
from rerank.cross_encoder import LoadedCrossEncoder
from rerank.outcomes import ModelUnavailable, RerankedResult, Reranker, Reranking, Skipped, SkipReason
from rerank.pool import affordable
from rerank.pool import pool_size as pool_size  # public, by rerank/__init__.py

logger = logging.getLogger(__name__)

SKIP_REASONS = {
    Refusal.TIMEOUT: SkipReason.TIMEOUT,
    Refusal.BREAKER_OPEN: SkipReason.BREAKER_OPEN,
    Refusal.QUEUE_FULL: SkipReason.QUEUE_FULL,
    Refusal.PREDICTED_LATE: SkipReason.PREDICTED_LATE,
    Refusal.ERROR: SkipReason.ERROR,
    Refusal.NOT_FINITE: SkipReason.NAN_SCORES,
}

# Answered at once, without the model: their latency would only flatter the figures.
TURNED_AWAY = {
    SkipReason.DISABLED,
    SkipReason.LOADING,
    SkipReason.MODEL_UNAVAILABLE,
    SkipReason.BREAKER_OPEN,
    SkipReason.QUEUE_FULL,
    SkipReason.PREDICTED_LATE,
    SkipReason.LONG_PASSAGES,
}


async def rerank(query: str, candidates: Sequence[str], timeout_ms: float = 250) -> list[RerankedResult]:
    """The candidates, best first. Never raises on account of the model: on any failure they keep their order.

    `candidates` come in retrieval order and are not changed. `timeout_ms` bounds the wait, for a model that is still
    loading too: a first call that it outlasts gives the candidates' order with `skip_reason` "loading".
    """
    reranking = await rerank_with_reason(query, candidates, timeout_ms=timeout_ms)
    return reranking.results(candidates or ())


async def maybe_rerank(query: str, candidates: Sequence[str]) -> list[str]:
    """The texts in their new order, or as they came."""
    return [result.text for result in await rerank(query, candidates, settings.RERANK_TIMEOUT_MS)]


async def rerank_with_reason(
    query: str,
    candidates: Sequence[str],
    *,
    timeout_ms: float | None = None,
    retrieval_scores: Sequence[float] | None = None,
) -> Reranking:
    """As `rerank`, but tells the reason when the order is the candidates' own. Cancelling it drops the work.

    `retrieval_scores`: those of the candidates, for weighted fusion, which without them fuses the two orders.
    """
    request = _request(query, candidates, timeout_ms, retrieval_scores)
    with _observed(request):
        if not await flag.ais_enabled():
            raise Skipped(SkipReason.DISABLED)
        if request.passages:
            await runtime.current().wait_while_loading_async(request.time_left())
            job, served = _submit(request)
            try:
                async with asyncio.timeout(request.time_left()):
                    request.take(await asyncio.wrap_future(job.future), served)
            except TimeoutError:
                raise Skipped(SkipReason.TIMEOUT) from None
    return request.outcome


def rerank_now(
    query: str,
    candidates: Sequence[str],
    *,
    timeout_ms: float | None = None,
    retrieval_scores: Sequence[float] | None = None,
) -> Reranking:
    """The synchronous twin for views. Shares engine, breaker and metrics with the coroutines.

    While the model loads it answers at once: a view's thread is not to be held by that.
    """
    request = _request(query, candidates, timeout_ms, retrieval_scores)
    with _observed(request):
        if not flag.is_enabled():
            raise Skipped(SkipReason.DISABLED)
        if request.passages:
            job, served = _submit(request)
            try:
                request.take(job.future.result(request.time_left()), served)
            except FutureTimeout:  # the job's own deadline has passed too: nobody works on it any more
                raise Skipped(SkipReason.TIMEOUT) from None
    return request.outcome


def get_cross_encoder() -> LoadedCrossEncoder:
    """The loaded model with CrossEncoder's `predict` and `rank`: one object a process, thread-safe.

    The first call loads, which takes seconds. Raises ModelUnavailable, saying what to do; also when RERANK_ENABLED is
    false, because then the cross-encoder is never loaded.
    """
    if not settings.RERANK_ENABLED:
        raise ModelUnavailable("RERANK_ENABLED is false.")
    return runtime.current().cross_encoder()


def get_rerank_metrics() -> dict[str, object]:
    """This process's own figures; `/metrics` has those of all processes.

    `rerank_skipped_total`: requests that kept the candidates' order. `rerank_latency_ms`: p50, p95 and max of the last
    1,024 requests that reached the model. `outcomes`: requests by `reranked`, `empty` or the skip reason.
    """
    served = runtime.current()
    engine = served.engine
    outcomes = metrics.outcome_counts()
    return {
        "rerank_skipped_total": sum(
            count for outcome, count in outcomes.items() if outcome not in ("reranked", "empty")
        ),
        "rerank_latency_ms": metrics.LATENCY_MS.summary(),
        "device": engine.backend.device if engine else "none",
        "enabled": flag.is_enabled(),
        "status": served.status.value,
        "model": engine.backend.model.name if engine else settings.RERANK_MODEL,
        "backend": engine.backend.name if engine else "none",
        "breaker": engine.breaker.snapshot().state.value if engine else "closed",
        "outcomes": outcomes,
    }


@dataclass(slots=True)
class _Request:
    query: str
    passages: tuple[str, ...]
    pool: int  # how many of them, from the first, the model is asked about
    timeout: float
    retrieval_scores: tuple[float, ...] | None = None
    started: float = field(default_factory=time.perf_counter)
    outcome: Reranking = Reranking((), None)  # of no candidates: neither reranked nor skipped

    def time_left(self) -> float:
        return max(0.0, self.timeout - (time.perf_counter() - self.started))

    def take(self, scores: tuple[float, ...], model: ServedModel) -> None:
        """Make the order of the scored pool, and let the rest follow as it came."""
        fusion = config.fusion_of(model)
        retrieved = None if self.retrieval_scores is None else self.retrieval_scores[: self.pool]
        rest = len(self.passages) - self.pool
        self.outcome = Reranking(
            order=(*fusion.order(scores, retrieved), *range(self.pool, len(self.passages))),
            scores=(*scores, *[None] * rest),
            reranker=Reranker(model.name, fusion.name),
        )


def _request(
    query: str, candidates: Sequence[str], timeout_ms: float | None, retrieval_scores: Sequence[float] | None
) -> _Request:
    passages = tuple(candidates or ())
    scores = None if retrieval_scores is None else tuple(retrieval_scores)
    return _Request(query, passages, affordable(query, passages), _seconds(timeout_ms), scores)


def _seconds(timeout_ms: float | None) -> float:
    return (settings.RERANK_TIMEOUT_MS if timeout_ms is None else timeout_ms) / 1000


def _submit(request: _Request) -> tuple[Job, ServedModel]:
    engine = runtime.current().serving_engine()
    model, passages = engine.backend.model, request.passages[: request.pool]
    if not config.fusion_of(model).suits(passages):
        raise Skipped(SkipReason.LONG_PASSAGES)
    asked = scoring.request(engine.backend, request.query, passages)
    return engine.submit(asked, request.time_left()), model


@contextmanager
def _observed(request: _Request) -> Iterator[None]:
    """Turn every failure into the candidates' own order, and count the outcome."""
    try:
        yield
    except Skipped as skip:
        request.outcome = Reranking.skipped(len(request.passages), skip.reason)
    except Refused as refused:
        request.outcome = Reranking.skipped(len(request.passages), SKIP_REASONS[refused.reason])
    except Exception as error:
        logger.error("Reranking failed: %s", describe(error))
        request.outcome = Reranking.skipped(len(request.passages), SkipReason.ERROR)
    _count(request)


def _count(request: _Request) -> None:
    elapsed = time.perf_counter() - request.started
    reason = request.outcome.skip_reason
    metrics.count_outcome(reason.value if reason else "reranked" if request.outcome.reranked else "empty")
    metrics.TOTAL_SECONDS.observe(elapsed)
    if reranker := request.outcome.reranker:
        metrics.REORDERED.labels(reranker.model, reranker.fusion).inc()
    if reason:
        metrics.SKIPPED.labels(reason.value).inc()
    if reason not in TURNED_AWAY:
        metrics.LATENCY_MS.add(elapsed * 1000)
        metrics.LATENCY.observe(elapsed * 1000)
