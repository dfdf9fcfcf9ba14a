"""Measures the reranker against a plain `CrossEncoder.predict` per request, on the same weights in the same run.

Three measurements: one client at four passage lengths; 16 clients at once; a stream of ten times the requests that 16
clients were served. Plain and ours take turns, so that other load on the machine hits both; and with them, one client
alone, the model of RERANK_FALLBACK_MODEL where there is one.
"""

import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
from django.conf import settings
from django.test import override_settings

from memory.benchmarks.report import Report, Row, Target, at_least, at_most, less_than
from memory.benchmarks.timing import latencies, percentile
from rerank import config, flag, rerank_now, rerank_with_reason, runtime
from rerank.backends.onnx_backend import OnnxBackend
from rerank.outcomes import Reranking, SkipReason
from rerank.weights.exported import verify_exported
from rerank.weights.files import locate

CANDIDATES = 24
LENGTHS = (20, 60, 120, 300)
SERVED_LENGTH = 120
CLIENTS = 16
TURNS = 4
OVERLOAD = 10
NO_HURRY_MS = 60_000
TURNED_AWAY = (SkipReason.PREDICTED_LATE, SkipReason.QUEUE_FULL)
# p95 of 24 candidates of about 120 tokens, in ms, by kind of device.
P95_MS = {"cpu": 80.0, "cuda": 12.0}
# The same of the fallback model, by tokens a passage; and the seconds in which it loads.
FALLBACK_P95_MS = {60: 150.0, 120: 150.0}
FALLBACK_LOAD_SECONDS = 2.0

Query = tuple[str, list[str]]
Scorer = tuple[str, Callable[..., object]]


def measure_rerank(*, queries: int, overload_seconds: float) -> Report:
    """Run everything with the model that the settings name. Raises ModelUnavailable."""
    report = Report("benchmark_rerank")
    with switched_on():
        with override_settings(RERANK_TIMEOUT_MS=NO_HURRY_MS):  # a busy machine must not open the breaker half way
            engine = runtime.reset().load_now()
            device = engine.backend.device
            what = f"{engine.backend.name} {engine.backend.dtype} on {device}"
            report.results.append({"step": "cold load", "seconds": runtime.current().load_seconds, "device": what})
            plain = _Plain(device)
            fallback = _fallback_scorer(report)
            for tokens in LENGTHS:
                plain_row, row, *others = _measure_latency([*_scorers(plain), *fallback], tokens, queries)
                report.results += [plain_row, row, *others]
                if tokens == SERVED_LENGTH:
                    report.targets += _latency_targets(plain_row, row, limit=P95_MS[device.partition(":")[0]])
                report.targets += [_fallback_target(other) for other in others if tokens in FALLBACK_P95_MS]
            rows = _measure_throughput(plain, queries)
        report.results += rows
        plain_rate, rate = (row["queries_per_min"] / 60 for row in rows)
        report.targets.append(at_least("throughput of 16 clients against plain predict", rate / plain_rate, 2.0, "×"))
        runtime.reset().load_now()  # with the settings' own timeout and breaker
        overload = _measure_overload(rate, overload_seconds)
        report.results.append(overload)
        report.targets += _overload_targets(overload)
        runtime.reset()
    return report


class _Plain:
    """The plain way: one call of the library per request, behind a lock, since its tokenizer needs one."""

    def __init__(self, device: str) -> None:
        from sentence_transformers import CrossEncoder

        directory = str(locate(config.model_choice()))
        self._encoder = CrossEncoder(directory, device=device, max_length=settings.RERANK_MAX_TOKENS)
        self._lock = threading.Lock()

    def __call__(self, query: str, passages: Sequence[str]) -> None:
        with self._lock:
            self._encoder.predict([(query, passage) for passage in passages], show_progress_bar=False)


def rerank_patiently(query: str, passages: Sequence[str]) -> None:
    """Rerank without a time limit that matters. Raises RuntimeError when the candidates were not reranked."""
    reranking = rerank_now(query, passages, timeout_ms=NO_HURRY_MS)
    if not reranking.reranked:
        raise RuntimeError(f"The benchmark was not reranked: {reranking.skip_reason}")


def _measure_latency(scorers: Sequence[Scorer], tokens: int, queries: int) -> list[Row]:
    """A row for each scorer, query by query in turns."""
    work = make_queries(tokens, queries)
    for _, call in scorers:  # warm at this length
        call(*work[0])
    times: dict[str, list[float]] = {name: [] for name, _ in scorers}
    for query, passages in work:
        for name, call in scorers:
            started = time.perf_counter()
            call(query, passages)
            times[name].append(time.perf_counter() - started)
    return [{"scorer": name, "tokens": tokens, **latency_columns(seconds)} for name, seconds in times.items()]


def _scorers(plain: _Plain) -> list[Scorer]:
    return [("plain", plain), ("ours", rerank_patiently)]


def _fallback_scorer(report: Report) -> list[Scorer]:
    """RERANK_FALLBACK_MODEL without engine or deadline, where there is one; how long it took to load is reported."""
    directory = config.fallback_directory()
    if directory is None or not directory.is_dir():
        return []
    started = time.perf_counter()
    backend = OnnxBackend(verify_exported(directory), config.token_limits(), settings.RERANK_THREADS)
    seconds, name = time.perf_counter() - started, backend.model.name
    what = f"{name}: {backend.name} {backend.dtype} on {backend.device}"
    report.results.append({"step": "cold load", "seconds": seconds, "device": what})
    report.targets.append(less_than(f"seconds to load {name}", seconds, FALLBACK_LOAD_SECONDS, "s"))
    return [(name, lambda query, passages: backend.predict([(query, passage) for passage in passages]))]


def _fallback_target(row: Row) -> Target:
    name = f"p95 of 24 candidates of ~{row['tokens']} tokens by {row['scorer']}"
    return less_than(name, row["p95_ms"], FALLBACK_P95_MS[row["tokens"]], "ms")


def latency_columns(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in ms, pairs a second and queries a minute, of queries of CANDIDATES pairs one after another."""
    total = sum(seconds)
    return {
        **{f"{name}_ms": 1000 * value for name, value in latencies(seconds, 50, 95, 99).items()},
        "pairs_per_s": len(seconds) * CANDIDATES / total,
        "queries_per_min": 60 * len(seconds) / total,
    }


def _latency_targets(plain: Row, ours: Row, *, limit: float) -> list[Target]:
    return [
        less_than("p95 of 24 candidates of ~120 tokens", ours["p95_ms"], limit, "ms"),
        at_most("the same against plain predict", ours["p95_ms"] / plain["p95_ms"], 0.6, "×"),
    ]


def _measure_throughput(plain: _Plain, queries: int) -> list[Row]:
    """16 clients, each asking again as soon as it is answered: the rows of plain and ours."""
    work = make_queries(SERVED_LENGTH, max(queries // TURNS, 2 * CLIENTS))
    seconds = {"plain": 0.0, "ours": 0.0}
    processor = {"plain": 0.0, "ours": 0.0}
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(TURNS):
            for name, call in _scorers(plain):
                started, busy = time.perf_counter(), time.process_time()
                list(pool.map(lambda query, call=call: call(*query), work))
                seconds[name] += time.perf_counter() - started
                processor[name] += time.process_time() - busy
    asked = TURNS * len(work)
    return [
        {
            "scorer": name,
            "clients": CLIENTS,
            "queries_per_min": 60 * asked / total,
            "cpu_ms_a_query": processor[name] / asked * 1000,
        }
        for name, total in seconds.items()
    ]


def _measure_overload(served: float, seconds: float) -> Row:
    """The outcome of OVERLOAD times the `served` requests a second. A latency without any request is None."""
    before = psutil.Process().memory_info().rss
    middle: list[int] = []
    answers = asyncio.run(_stream(OVERLOAD * served, seconds, middle))
    after = psutil.Process().memory_info().rss
    accepted = [elapsed for reranking, elapsed in answers if reranking.reranked]
    turned_away = [elapsed for reranking, elapsed in answers if reranking.skip_reason in TURNED_AWAY]
    reasons = Counter(reranking.skip_reason for reranking, _ in answers)
    return {
        "offered_per_s": OVERLOAD * served,
        "answered": len(answers),
        "reranked": len(accepted),
        "reranked_p99_ms": percentile(accepted, 99) * 1000 if accepted else None,
        "turned_away_p99_ms": percentile(turned_away, 99) * 1000 if turned_away else None,
        "timeouts": reasons[SkipReason.TIMEOUT],
        "breaker_open": reasons[SkipReason.BREAKER_OPEN],
        "memory_growth_mib": (after - (middle[0] if middle else before)) / 2**20,
    }


def _overload_targets(overload: Row) -> list[Target]:
    """The targets under overload. When no request was reranked, that is a missed target."""
    reranked, turned_away = overload["reranked_p99_ms"], overload["turned_away_p99_ms"]
    found = [at_least("requests reranked at 10 × capacity", overload["reranked"], 1)]
    if reranked is not None:
        found.append(less_than("p99 of the requests reranked at 10 × capacity", reranked, 250.0, "ms"))
    if turned_away is not None:
        found.append(less_than("p99 of the requests turned away at 10 × capacity", turned_away, 50.0, "ms"))
    growth = overload["memory_growth_mib"]
    return [*found, less_than("memory growth in the second half of the overload", growth, 32.0, "MiB")]


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
def switched_on() -> Iterator[None]:
    """Within the block, reranking is on, whatever the operators' switch in the database says."""
    switch, flag.switch = flag.switch, flag.Switch(read=lambda: True)
    try:
        yield
    finally:
        flag.switch = switch


@contextmanager
def random_weights() -> Iterator[str]:
    """Within the block, the model is one of TinyBERT's shape with random weights. Yields a note for the report."""
    from rerank.weights.random_model import write_random_model

    with tempfile.TemporaryDirectory() as directory:
        write_random_model(Path(directory))
        choice = {"RERANK_MODEL": directory, "RERANK_MODEL_SHA256": "", "RERANK_GOLDEN": []}
        with override_settings(RERANK_ENABLED=True, **choice):
            yield "Random weights of TinyBERT's shape: the latency is honest, the order is noise."


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
