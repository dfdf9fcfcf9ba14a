"""Prometheus counters and histograms of the memory. Labels have fixed values: never a user, a text or a key."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from prometheus_client import Counter, Histogram

from memory.tracing import span

SEALS = Counter("memory_seals_total", "Values sealed.")
OPENS = Counter("memory_opens_total", "Sealed values opened.")
INTEGRITY_FAILURES = Counter("memory_integrity_failures_total", "Seals that did not open.")
ROWS_REFUSED = Counter(
    "memory_rows_refused_total", "Rows refused for their MAC, by what was wrong with it.", ["reason"]
)
KEY_ID_DRIFT = Counter("memory_key_id_drift_total", "Rows that opened under another key than the one they name.")
AUTHENTICATION_FAILURES = Counter("memory_authentication_failures_total", "Calls with a credential that is none.")
REQUESTS_REPLAYED = Counter("memory_requests_replayed_total", "Requests answered as the first time, by their key.")
REQUESTS_PURGED = Counter("memory_requests_purged_total", "Answers that were kept for MEMORY_IDEMPOTENCY_HOURS.")
THROTTLED = Counter("memory_throttled_total", "Calls refused with 429, by the scope of their verb.", ["scope"])
STAGE_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
STAGE_SECONDS = Histogram(
    "memory_stage_seconds", "Seconds spent in one stage of a verb.", ["verb", "stage"], buckets=STAGE_BOUNDS
)
CANDIDATE_SEARCHES = Counter("memory_candidate_searches_total", "Searches for candidates, by path taken.", ["path"])
CHUNKS_INDEXED = Counter("memory_chunks_indexed_total", "Chunks written.")
CHUNKS_PURGED = Counter("memory_chunks_purged_total", "Chunks deleted because they had expired.")
OPERATIONS_ACCEPTED = Counter("memory_operations_accepted_total", "Index calls accepted to be done later.")
OPERATIONS = Counter("memory_operations_total", "Attempts at accepted index calls, by outcome.", ["outcome"])
OPERATIONS_PURGED = Counter("memory_operations_purged_total", "Finished operations deleted after their time.")

DEGRADED = Counter(
    "memory_degraded_answers_total", "Questions answered by keywords alone, by why there was no embedding.", ["reason"]
)


@cache
def _stage(verb: str, name: str) -> Any:
    return STAGE_SECONDS.labels(verb, name)  # which looks the child up under a lock


@contextmanager
def stage(verb: str, name: str, timings: dict[str, float] | None = None) -> Iterator[None]:
    """Time one stage of a verb into the histogram and, in milliseconds, into `timings[name]`; a span is around it."""
    started = time.perf_counter()
    try:
        with span(f"{verb} {name}"):
            yield
    finally:
        elapsed = time.perf_counter() - started
        _stage(verb, name).observe(elapsed)
        if timings is not None:
            timings[name] = round(elapsed * 1000, 3)
