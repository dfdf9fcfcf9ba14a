"""Measures queries and writes while a rotation runs in another process: errors, lost writes, and latency."""

import multiprocessing
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from time import monotonic, perf_counter

from django.conf import settings

from memory.benchmarks.report import Report, Row, Target, at_most
from memory.benchmarks.rotation import Load, Swap, Unrecorded, alternating_keys, documents, rotation_of, store
from memory.benchmarks.synthetic import Synthetic
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import percentile
from memory.indexing import index_documents
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.search.retrieval import query_memories

IDLE_SECONDS = 10.0
NOTE = (
    "beside = one client that alternates a query and a replaced document, tenant after tenant, first with the machine"
    " to itself (idle), then while another process rotates all of them at the given rate (during)."
)


@dataclass
class Seen:
    """Latencies in milliseconds, and errors."""

    queries: list[float] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    errors: int = 0


def measure_beside_load(load: Load, max_rate: float, *, verbosity: int = 1) -> Report:
    """Rotate once at `max_rate` rows/s beside a client."""
    users = [benchmark_user(f"beside-{number}") for number in range(load.tenants)]
    with alternating_keys() as swap, throwaway_tenants(users):
        hashes = store(load, users, verbosity)
        client = Client(users, load)
        give_up = monotonic() + IDLE_SECONDS
        idle = client.work(lambda: monotonic() < give_up)
        rotating = _in_another_process(lambda: _rotate(swap, hashes, load, max_rate))
        with swap(0):
            during = client.work(rotating.is_alive)
            rotating.join()
            verified = Unrecorded()
            rotation_of(hashes, load, verified).verify()  # re-seals what the client had locked, too
            lost = client.lost() + len(verified.failures) + abs(rotating.exitcode or 0)
        with swap(1):
            rotation_of(hashes, load, Unrecorded()).move()
    rows = [_row("idle", idle), _row(f"during, {max_rate:,.0f} rows/s", during)]
    return Report("benchmark_rotation", rows, targets(rows, lost), [NOTE])


def targets(rows: Sequence[Row], lost: int) -> list[Target]:
    """The bounds of a rotation beside a load."""
    idle, during = rows
    return [
        at_most("errors beside a rotation", idle["errors"] + during["errors"], 0),
        at_most("writes lost beside a rotation", lost, 0),
        at_most("query p95 during / idle", during["query_p95_ms"] / idle["query_p95_ms"], 2.0, "×"),
        at_most("write p95 during / idle", during["write_p95_ms"] / idle["write_p95_ms"], 2.0, "×"),
    ]


class Client:
    """Alternates queries and writes for the tenants, and remembers what it wrote last."""

    def __init__(self, users: Sequence[str], load: Load) -> None:
        self._users = users
        self._load = load
        self._source = Synthetic(settings.MEMORY_EMBEDDING_DIM, stream=2)
        self._expected: dict[tuple[str, str], str] = {}
        self._number = 0

    def work(self, going_on: Callable[[], bool]) -> Seen:
        """Query and write until `going_on()` is false."""
        seen = Seen()
        while going_on():
            self._number += 1
            user_id = self._users[self._number % len(self._users)]
            try:
                seen.queries.append(self._query(user_id))
                seen.writes.append(self._write(user_id))
            except Exception:  # noqa: BLE001  (counting them is what this is for)
                seen.errors += 1
        return seen

    def lost(self) -> int:
        """Documents that do not say what was last written."""
        lost = 0
        for (user_id, doc_id), text in self._expected.items():
            with tenant_transaction(user_id):
                lost += [chunk.text for chunk in MemoryChunk.objects.filter(doc_id=doc_id)] != [text]
        return lost

    def _query(self, user_id: str) -> float:
        (vector,) = self._source.vectors(1)
        started = perf_counter()
        found = query_memories(user_id=user_id, query="memory", top_k=24, embedding=vector)
        elapsed = (perf_counter() - started) * 1000
        if found.integrity_failures or not found.matches:
            raise LookupError("A query lost rows.")
        return elapsed

    def _write(self, user_id: str) -> float:
        (document,) = documents(self._source, self._number % self._load.rows_each, 1)
        started = perf_counter()
        index_documents(user_id=user_id, documents=[document])
        elapsed = (perf_counter() - started) * 1000
        self._expected[user_id, document.doc_id] = document.chunks[0].text
        return elapsed


def _row(name: str, seen: Seen) -> Row:
    return {
        "load": name,
        "operations": len(seen.queries) + len(seen.writes),
        "errors": seen.errors,
        "query_p50_ms": percentile(seen.queries, 50),
        "query_p95_ms": percentile(seen.queries, 95),
        "write_p50_ms": percentile(seen.writes, 50),
        "write_p95_ms": percentile(seen.writes, 95),
    }


def _rotate(swap: Swap, hashes: Sequence[str], load: Load, max_rate: float) -> None:
    with swap(0):
        rotation_of(hashes, load, Unrecorded(), max_rate).move()


def _in_another_process(work: Callable[[], None]) -> BaseProcess:
    # A fork, because the other key must never leave these two processes.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the pool's threads stay behind, and are not used
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
    return process
