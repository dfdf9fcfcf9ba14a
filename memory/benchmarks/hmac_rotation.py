"""Measures the move of tenants to another HMAC key: its speed, its memory, and the latency of users meanwhile.

Only the benchmark's own tenants are touched. They are stored under a key that is made for it, and moved to another such
key and then to the installation's own, by the code that `rotate_hmac_key` runs for each tenant.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import psutil
from django.conf import settings
from django.db import connection
from django.test import override_settings

from keys.generation import generate_key
from memory.benchmarks.command import progress
from memory.benchmarks.report import Report, Row, Target, at_least, at_most
from memory.benchmarks.synthetic import Synthetic, zipf_sizes
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import percentile
from memory.documents.document import Chunk, Document
from memory.indexing import index_documents
from memory.rls import tenant_transaction
from memory.rotation.integrity import inspect_tenant
from memory.rotation.tenant_move import Move, move_tenant
from memory.search.retrieval import query_memories
from memory.security import user_hashes

ROWS_A_CALL = 500
IDLE_SECONDS = 5.0
PAUSE_SECONDS = 0.02

MOVED = (
    "move = open three seals a row under the old hash, seal them under the new one, turn the vector and hash the terms"
    " anew, insert, delete the old row; tenants of Zipf size, those above --batch copied, caught up and flipped."
)
SERVED = (
    "quiet = nothing else runs. served = one thread queries and one writes for the largest tenant meanwhile; latencies"
    " in ms beside those of the same threads before the move."
)


@dataclass(frozen=True)
class Load:
    """How much is moved: chunks of `words` words, over tenants of Zipf size; `batch` rows a transaction."""

    rows: int
    tenants: int
    words: int
    batch: int

    @property
    def sizes(self) -> list[int]:
        return zipf_sizes(self.rows, self.tenants)


@dataclass
class Traffic:
    """A thread that repeats one operation for one user, and how long each call took."""

    work: Any
    milliseconds: list[float] = field(default_factory=list)
    errors: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stop.wait(PAUSE_SECONDS):
            started = perf_counter()
            try:
                self.work()
            except Exception:  # noqa: BLE001  (counted: a user would have seen it)
                self.errors += 1
            self.milliseconds.append((perf_counter() - started) * 1000)
        connection.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run for the block, from no samples."""
        self.milliseconds, self._stop = [], threading.Event()
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def measure_hmac_rotation(load: Load, *, verbosity: int = 1) -> Report:
    """Store the load under a key of the benchmark's own, move it twice (quiet, served), erase it again."""
    users = [benchmark_user(f"hmac-{number}") for number in range(load.tenants)]
    keys = [generate_key(), generate_key(), settings.MEMORY_TENANT_HMAC_KEY]
    # Throughout, every key is accepted: whatever stops the benchmark, its users are found and erased.
    with _current(keys[0], keys), throwaway_tenants(users):
        _store(load, users, verbosity)
        with _current(keys[1], keys):
            quiet = _move(load, users, "quiet", verbosity)
        with _current(keys[2], keys):
            served = _serve(load, users, verbosity)
            verified = _verify(users, verbosity)
        rows = [quiet, served, verified]
        return Report("benchmark_hmac_rotation", rows, targets(quiet, served, verified), [MOVED, SERVED])


def targets(quiet: Row, served: Row, verified: Row) -> list[Target]:
    """The bounds of the HMAC rotation."""
    return [
        at_least("HMAC rotation: throughput", quiet["rows_s"], 1500, "rows/s"),
        at_most("HMAC rotation: errors of queries and writes meanwhile", served["errors"], 0),
        at_most("HMAC rotation: writes lost", served["lost"], 0),
        at_most("HMAC rotation: findings afterwards", verified["findings"], 0),
    ]


@contextmanager
def _current(key: str, keys: Sequence[str]) -> Iterator[None]:
    others = [each for each in keys if each != key]
    accepted = [*others, *(each for each in settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED if each not in keys)]
    with override_settings(MEMORY_TENANT_HMAC_KEY=key, MEMORY_TENANT_HMAC_KEYS_ACCEPTED=accepted):
        yield


def _store(load: Load, users: Sequence[str], verbosity: int) -> None:
    source = Synthetic(settings.MEMORY_EMBEDDING_DIM)
    with progress((), "Storing", verbosity=verbosity, unit="row", total=load.rows) as bar:
        for user_id, size in zip(users, load.sizes, strict=True):
            for first in range(0, size, ROWS_A_CALL):
                count = min(ROWS_A_CALL, size - first)
                texts = source.texts(count, load.words)
                chunks = [Chunk(text, vector) for text, vector in zip(texts, source.vectors(count), strict=True)]
                documents = [
                    Document(f"doc-{first + number}", "benchmark", (chunk,), {"number": first + number})
                    for number, chunk in enumerate(chunks)
                ]
                index_documents(user_id=user_id, documents=documents)
                bar.update(count)


def _move(load: Load, users: Sequence[str], label: str, verbosity: int) -> Row:
    process = psutil.Process()
    before, largest = process.memory_info().rss, 0
    started = perf_counter()
    with progress((), f"Moving, {label}", verbosity=verbosity, unit="row", total=load.rows) as bar:
        for user_id in users:
            with tenant_transaction(user_id) as old:
                pass
            size = _chunk_count(user_id)
            move_tenant(Move(user_id, old, user_hashes(user_id)[0], size), batch=load.batch, advance=bar.update)
            largest = max(largest, process.memory_info().rss)
    seconds = perf_counter() - started
    return {
        "move": label,
        "tenants": load.tenants,
        "rows": load.rows,
        "seconds": seconds,
        "rows_s": load.rows / seconds,
        "memory_growth_mib": max(0, largest - before) / 2**20,
    }


def _serve(load: Load, users: Sequence[str], verbosity: int) -> Row:
    """Move once more while the largest tenant is read and written."""
    source = Synthetic(settings.MEMORY_EMBEDDING_DIM, seed=1)
    vectors, (text,) = source.vectors(64), source.texts(1, load.words)
    written: list[str] = []

    def read() -> None:
        query_memories(user_id=users[0], query=text, embedding=vectors[0], top_k=8)

    def write() -> None:
        doc_id = f"written-{len(written)}"
        chunk = Chunk(text, vectors[len(written) % len(vectors)])
        index_documents(user_id=users[0], documents=[Document(doc_id, "benchmark", (chunk,))])
        written.append(doc_id)

    reading, writing = Traffic(read), Traffic(write)
    with reading.running(), writing.running():
        threading.Event().wait(IDLE_SECONDS)
    idle = percentile(reading.milliseconds, 95), percentile(writing.milliseconds, 95)
    with reading.running(), writing.running():
        row = _move(load, users, "served", verbosity)
    return {
        **row,
        "query_p95_ms": percentile(reading.milliseconds, 95),
        "idle_query_p95_ms": idle[0],
        "write_p95_ms": percentile(writing.milliseconds, 95),
        "idle_write_p95_ms": idle[1],
        "longest_write_ms": max(writing.milliseconds),
        "errors": reading.errors + writing.errors,
        "lost": load.sizes[0] + len(written) - _chunk_count(users[0]),
    }


def _verify(users: Sequence[str], verbosity: int) -> Row:
    started = perf_counter()
    rows = findings = 0
    for user_id in progress(users, "Verifying", verbosity=verbosity, unit="tenant"):
        with tenant_transaction(user_id) as user_hash:
            pass
        seen = inspect_tenant(user_hash)
        rows += seen.rows
        findings += len(seen.findings)
    seconds = perf_counter() - started
    return {"verify": "all", "rows": rows, "seconds": seconds, "rows_s": rows / seconds, "findings": findings}


def _chunk_count(user_id: str) -> int:
    with tenant_transaction(user_id) as user_hash, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM memory_chunks WHERE user_hash = %s", [user_hash])
        return int(cursor.fetchone()[0])
