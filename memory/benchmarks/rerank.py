"""How fast is the reranker beside a plain `CrossEncoder.predict` per request, on the same weights in the same run?

Three questions: one client at four passage lengths; 16 clients at once; an open stream of ten times what was served.
Plain and ours take turns query by query, so that whatever else the machine does hits both.
"""

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil
from django.conf import settings
from django.test import override_settings

from rerank import flag, rerank_now, rerank_with_reason, runtime
from rerank.engine.latency import percentile
from rerank.outcomes import Reranking, SkipReason
from rerank.weights.files import locate

CANDIDATES = 24
LENGTHS = (20, 60, 120, 300)
SERVED_LENGTH = 120
CLIENTS = 16
TURNS = 4
OVERLOAD = 10
NO_HURRY_MS = 60_000
TURNED_AWAY = (SkipReason.PREDICTED_LATE, SkipReason.QUEUE_FULL)

Query = tuple[str, list[str]]


@dataclass
class Measured:
    """Rows for the report's tables, and the figures that have targets."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    p95_ms: float = 0.0
    p95_against_plain: float = 0.0
    throughput_against_plain: float = 0.0
    overload: dict[str, Any] = field(default_factory=dict)


def measure(*, queries: int, overload_seconds: float) -> Measured:
    """Run everything with the model that the settings name. Raises ModelUnavailable."""
    with _switched_on():
        found = Measured()
        with override_settings(RERANK_TIMEOUT_MS=NO_HURRY_MS):  # a busy machine must not open the breaker half way
            started = time.perf_counter()
            engine = runtime.reset().load_now()
            found.rows.append(
                {"step": "cold load", "seconds": time.perf_counter() - started, "device": _device(engine)}
            )
            plain = _Plain(engine.backend.device)
            for tokens in LENGTHS:
                _measure_latency(found, plain, tokens, queries)
            served = _measure_throughput(found, plain, queries)
        runtime.reset().load_now()  # with the settings' own timeout and breaker
        _measure_overload(found, served, overload_seconds)
        runtime.reset()
        return found


class _Plain:
    """What a service does that calls the library once a request; behind a lock, since its tokenizer needs one."""

    def __init__(self, device: str) -> None:
        from sentence_transformers import CrossEncoder

        from rerank import config

        directory = str(locate(config.model_choice()))
        self._encoder = CrossEncoder(directory, device=device, max_length=settings.RERANK_MAX_TOKENS)
        self._lock = threading.Lock()

    def __call__(self, query: str, passages: Sequence[str]) -> None:
        with self._lock:
            self._encoder.predict([(query, passage) for passage in passages], show_progress_bar=False)


def _ours(query: str, passages: Sequence[str]) -> None:
    reranking = rerank_now(query, passages, timeout_ms=NO_HURRY_MS)
    if not reranking.reranked:
        raise RuntimeError(f"The benchmark was not reranked: {reranking.skip_reason}")


def _measure_latency(found: Measured, plain: _Plain, tokens: int, queries: int) -> None:
    work = make_queries(tokens, queries)
    for call in (plain, _ours):  # warm at this length
        call(*work[0])
    times: dict[Callable[..., None], list[float]] = {plain: [], _ours: []}
    for query, passages in work:
        for call, seconds in times.items():
            started = time.perf_counter()
            call(query, passages)
            seconds.append(time.perf_counter() - started)
    rows = [_latency_row(name, tokens, times[call]) for name, call in (("plain", plain), ("ours", _ours))]
    found.rows += rows
    if tokens == SERVED_LENGTH:
        found.p95_ms = rows[1]["p95_ms"]
        found.p95_against_plain = rows[1]["p95_ms"] / rows[0]["p95_ms"]


def _latency_row(name: str, tokens: int, seconds: list[float]) -> dict[str, Any]:
    total = sum(seconds)
    return {
        "scorer": name,
        "tokens": tokens,
        "p50_ms": percentile(seconds, 0.5) * 1000,
        "p95_ms": percentile(seconds, 0.95) * 1000,
        "p99_ms": percentile(seconds, 0.99) * 1000,
        "pairs_per_s": len(seconds) * CANDIDATES / total,
        "queries_per_min": 60 * len(seconds) / total,
    }


def _measure_throughput(found: Measured, plain: _Plain, queries: int) -> float:
    """16 clients, each asking again as soon as it is answered. Returns our queries a second."""
    work = make_queries(SERVED_LENGTH, max(queries // TURNS, 2 * CLIENTS))
    seconds = {"plain": 0.0, "ours": 0.0}
    processor = {"plain": 0.0, "ours": 0.0}
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(TURNS):
            for name, call in (("plain", plain), ("ours", _ours)):
                started, busy = time.perf_counter(), time.process_time()
                list(pool.map(lambda query, call=call: call(*query), work))
                seconds[name] += time.perf_counter() - started
                processor[name] += time.process_time() - busy
    asked = TURNS * len(work)
    rates = {name: asked / total for name, total in seconds.items()}
    for name, rate in rates.items():
        cpu = processor[name] / asked * 1000
        found.rows.append({"scorer": name, "clients": CLIENTS, "queries_per_min": 60 * rate, "cpu_ms_a_query": cpu})
    found.throughput_against_plain = rates["ours"] / rates["plain"]
    return rates["ours"]


def _measure_overload(found: Measured, served: float, seconds: float) -> None:
    before = psutil.Process().memory_info().rss
    middle: list[int] = []
    answers = asyncio.run(_stream(OVERLOAD * served, seconds, middle))
    after = psutil.Process().memory_info().rss
    accepted = [elapsed for reranking, elapsed in answers if reranking.reranked]
    reasons = Counter(reranking.skip_reason or "reranked" for reranking, _ in answers)
    turned_away = [
        elapsed for reranking, elapsed in answers if reranking.skip_reason in ("predicted_late", "queue_full")
    ]
    found.overload = {
        "offered_per_s": OVERLOAD * served,
        "answered": len(answers),
        "reranked": len(accepted),
        "reranked_p99_ms": percentile(accepted, 0.99) * 1000,
        "turned_away_p99_ms": percentile(turned_away, 0.99) * 1000,
        "timeouts": reasons.get(SkipReason.TIMEOUT, 0),
        "breaker_open": reasons.get(SkipReason.BREAKER_OPEN, 0),
        "memory_growth_mib": (after - (middle[0] if middle else before)) / 2**20,
    }
    found.rows.append(found.overload)


async def _stream(rate: float, seconds: float, middle: list[int]) -> list[tuple[Reranking, float]]:
    """Requests at `rate` a second whether or not earlier ones are answered. Notes the memory half way."""
    work = make_queries(SERVED_LENGTH, 50)
    count, started = int(rate * seconds), time.perf_counter()
    tasks = []
    for number in range(count):
        delay = started + number / rate - time.perf_counter()
        await asyncio.sleep(max(0.0, delay))
        if number == count // 2:
            middle.append(psutil.Process().memory_info().rss)
        tasks.append(asyncio.create_task(_timed(*work[number % len(work)])))
    return list(await asyncio.gather(*tasks))


async def _timed(query: str, passages: list[str]) -> tuple[Reranking, float]:
    started = time.perf_counter()
    reranking = await rerank_with_reason(query, passages)
    return reranking, time.perf_counter() - started


def make_queries(tokens: int, count: int, seed: int = 0) -> list[Query]:
    """`count` queries of eight words with 24 passages of `tokens` word pieces each, give or take a quarter."""
    generator = random.Random(seed)  # noqa: S311
    low, high = round(tokens * 0.75), round(tokens * 1.25)

    def text(length: int) -> str:
        return " ".join(generator.choices(WORDS, k=length))

    return [(text(8), [text(generator.randint(low, high)) for _ in range(CANDIDATES)]) for _ in range(count)]


@contextmanager
def _switched_on() -> Iterator[None]:
    """Without the database: the benchmark measures the reranker, whatever the operators' switch says."""
    switch, flag.switch = flag.switch, flag.Switch(read=lambda: True)
    try:
        yield
    finally:
        flag.switch = switch


def _device(engine: Any) -> str:
    return f"{engine.backend.name} {engine.backend.dtype} on {engine.backend.device}"


# Each is one word piece of the uncased BERT vocabulary.
_COMMON = """
about after again agent air also answer any area ask back bank base beach bed before begin best better big
bird black blue board boat body book both box boy break bring brother brown build bus business buy call camera
camp car card care carry case cat cause chair change child choose church city class clean clear close cloud
coffee cold color come company cook cool copy corner cost country course cover cross cup dark data daughter
day deal dinner doctor dog door dream dress drink drive dry early east eat edge end energy enjoy evening
family farm fast father feel field fight film find finger fire fish flight floor flower follow food foot
forest form friend front
"""
WORDS = tuple(_COMMON.split())
