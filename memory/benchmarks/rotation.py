"""Measures re-sealing against a bare UPDATE of the same columns with the same bytes.

It works on throw-away tenants only and records no run. The engine and the statements are those of
`rotate_encryption_key`; the keys alternate between the sealing key and a throw-away one.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np
import psutil
from django.conf import settings
from django.test.utils import override_settings

from keys import nonces
from keys.generation import generate_key
from keys.keyring import get_keyring, parse_key
from keys.leases import HeldLease
from keys.models import KeyRecord, Purpose, RotationRun
from keys.movers import KeyCount
from keys.pace import Pace
from keys.rotation import Rotation
from keys.runs import LEASE, Progress
from memory.benchmarks.command import progress
from memory.benchmarks.plain_tables import owner_connection
from memory.benchmarks.report import Report, Row, Target, at_least, at_most
from memory.benchmarks.synthetic import Synthetic
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import percentile
from memory.documents.document import Chunk, Document
from memory.indexing import index_documents
from memory.rls import tenant_transaction, tenant_transaction_by_hash
from memory.rotation.encryption_key import EncryptionKeyMover
from memory.search.retrieval import query_memories
from memory.tenancy.cursors import binary_cursor

TEXT_CHARACTERS = 1024
SCANS = 60
FLAT_MIB = 32.0
FLAT_FROM = 10_000

BARE = (
    "bare = UPDATE … FROM unnest(…) of the same three columns and the key id with the bytes they hold already, in the"
    " same batches behind the same door; no reading, locking, opening or sealing. The two take turns, tenant by tenant."
)
RATIO = "ratio = median over all tenants and rotations of bare time / rotation time; 1 is no overhead."
VERIFY = "verify = the pass that opens every row with the new key alone; not part of rows/s."

BARE_UPDATE = (
    "UPDATE memory_chunks AS old SET enc_key_id = new.key_id, text_cipher = new.c0, meta_cipher = new.c1,"
    " emb_cipher = new.c2 FROM unnest(%b::uuid[], %b::text[], %b::bytea[], %b::bytea[], %b::bytea[])"
    " AS new (id, key_id, c0, c1, c2) WHERE old.user_hash = %s AND old.id = new.id"
)


@dataclass(frozen=True)
class Load:
    """How many rows of 1 KiB text, over how many tenants, are rotated how often, in batches of how many."""

    rows: int
    tenants: int
    rotations: int
    batch: int

    @property
    def rows_each(self) -> int:
        return self.rows // self.tenants


class Scoped(EncryptionKeyMover):
    """The mover of the encryption key, limited to some tenants."""

    def __init__(self, hashes: Sequence[str]) -> None:
        self._hashes = sorted(hashes)

    def tenants(self, *, after: str) -> Iterator[str]:
        return iter(user_hash for user_hash in self._hashes if user_hash > after)

    def key_counts(self) -> list[KeyCount]:
        return []


class Unrecorded(Progress):
    """Progress that is not saved. Records the peak memory, in MiB: of the first 10,000 rows, and of all."""

    def __init__(self) -> None:
        super().__init__(RotationRun(kind=Purpose.ENCRYPTION), HeldLease(LEASE, holder=""))
        self.early_mib = self.peak_mib = 0.0
        self._rows = 0
        self._process = psutil.Process()

    def save(self) -> None:
        """Nothing is saved."""

    def advance(self, rows: int, *, cursor: str | None = None) -> None:
        super().advance(rows, cursor=cursor)
        self._rows += rows
        self.peak_mib = max(self.peak_mib, self._process.memory_info().rss / 2**20)
        if self._rows <= FLAT_FROM:
            self.early_mib = self.peak_mib


def measure_rotation(load: Load, *, verbosity: int = 1) -> Report:
    """Store the rows, rotate them repeatedly between two keys, and erase them."""
    users = [benchmark_user(f"rotation-{number}") for number in range(load.tenants)]
    with alternating_keys() as swap, throwaway_tenants(users):
        hashes = store(load, users, verbosity)
        seen = Unrecorded()
        scan_before = scan_ms(users[0])
        times: list[np.ndarray] = []
        for number in progress(range(load.rotations), "Rotating", verbosity=verbosity, unit="rotation"):
            with swap(number):
                times.append(np.array([_in_turns(user_hash, load, seen) for user_hash in hashes]))
        with swap(load.rotations - 1):
            scan_after = scan_ms(users[0])
            verify_seconds = _verify(hashes, load)
    rows = [summary(number, load, each) for number, each in enumerate(times, start=1)]
    overall = {
        "scan_before_ms": scan_before, "scan_after_ms": scan_after, "verify_rows_s": load.rows / verify_seconds,
        "memory_early_mib": seen.early_mib, "memory_peak_mib": seen.peak_mib,
    }  # fmt: skip
    return Report("benchmark_rotation", [*rows, overall], targets(times, rows, overall), [BARE, RATIO, VERIFY])


def summary(number: int, load: Load, times: np.ndarray) -> Row:
    """One rotation; `times` are seconds of bare and rotation per tenant, (tenants, 2)."""
    rows = load.rows_each * load.tenants
    return {
        "rotation": number,
        "rows": rows,
        "rows_s": rows / times[:, 1].sum(),
        "bare_rows_s": rows / times[:, 0].sum(),
        "ratio": percentile(times[:, 0] / times[:, 1], 50),
    }


def targets(times: Sequence[np.ndarray], rows: Sequence[Row], overall: Row) -> list[Target]:
    """The bounds of the encryption rotation."""
    every = np.concatenate(list(times))
    found = [
        at_least("re-sealing: ratio to a bare UPDATE", percentile(every[:, 0] / every[:, 1], 50), 0.6, "×"),
        at_least("re-sealing: throughput", percentile([row["rows_s"] for row in rows], 50), 10_000, "rows/s"),
        at_most("exact scan after / before", overall["scan_after_ms"] / overall["scan_before_ms"], 1.2, "×"),
        at_most("memory beyond 10,000 rows", overall["memory_peak_mib"] - overall["memory_early_mib"], FLAT_MIB, "MiB"),
    ]
    if len(rows) > 1:
        found.insert(2, at_least("last / first rotation", rows[-1]["rows_s"] / rows[0]["rows_s"], 0.8, "×"))
    return found


@contextmanager
def alternating_keys() -> Iterator["Swap"]:
    """The environment's sealing key and a throw-away one, of which no record stays afterwards."""
    swap = Swap(settings.MEMORY_ENCRYPTION_KEY, generate_key())
    yield swap
    key_id = parse_key(swap.other).key_id
    nonces.discard(key_id)  # or the next commit of this process would report its seals again
    KeyRecord.objects.filter(key_id=key_id).delete()


@dataclass(frozen=True, repr=False)
class Swap:
    """Call with 0, 1, 2, …: the other key seals, the environment's, the other, … and both open."""

    own: str
    other: str

    @contextmanager
    def __call__(self, number: int) -> Iterator[None]:
        sealing, leaving = (self.other, self.own) if number % 2 == 0 else (self.own, self.other)
        accepted = [leaving, *settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED]
        with override_settings(MEMORY_ENCRYPTION_KEY=sealing, MEMORY_ENCRYPTION_KEYS_ACCEPTED=accepted):
            yield


def store(load: Load, users: Sequence[str], verbosity: int) -> list[str]:
    """Fill the tenants; returns their hashes."""
    source = Synthetic(settings.MEMORY_EMBEDDING_DIM)
    hashes = []
    for user_id in progress(users, "Storing", verbosity=verbosity, unit="tenant"):
        for first in range(0, load.rows_each, load.batch):
            count = min(load.batch, load.rows_each - first)
            index_documents(user_id=user_id, documents=list(documents(source, first, count)))
        with tenant_transaction(user_id) as user_hash:
            hashes.append(str(user_hash))
    _analyze()
    return hashes


def documents(source: Synthetic, first: int, count: int) -> Iterator[Document]:
    """Documents of one chunk: 1 KiB of text, embedding given."""
    texts, vectors = source.texts(count, 200), source.vectors(count)
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), start=first):
        yield Document(f"doc-{number}", "benchmark", (Chunk(text[:TEXT_CHARACTERS], vector),), {"number": number})


def scan_ms(user_id: str) -> float:
    """p50 of finding candidates for a query, in milliseconds."""
    vectors = Synthetic(settings.MEMORY_EMBEDDING_DIM, stream=1).vectors(SCANS)
    found = []
    for vector in vectors:
        started = perf_counter()
        query_memories(user_id=user_id, query="memory", top_k=24, embedding=vector)
        found.append((perf_counter() - started) * 1000)
    return percentile(found, 50)


def rotation_of(hashes: Sequence[str], load: Load, seen: Unrecorded, max_rate: float = 0.0) -> Rotation:
    """The engine of a rotation for some tenants, whose progress is not saved."""
    seen.pace = Pace(batch=load.batch, max_rate=max_rate)
    return Rotation(Scoped(hashes), seen, get_keyring().sealing.key_id)


def _in_turns(user_hash: str, load: Load, seen: Unrecorded) -> tuple[float, float]:
    bare = _bare_update(user_hash, load.batch)
    gc.collect()
    started = perf_counter()
    rotation_of([user_hash], load, seen).move()
    return bare, perf_counter() - started


def _verify(hashes: Sequence[str], load: Load) -> float:
    started = perf_counter()
    seen = Unrecorded()
    rotation_of(hashes, load, seen).verify()
    if seen.failures:
        raise RuntimeError(f"{len(seen.failures)} rows do not open after their rotation.")
    return perf_counter() - started


def _bare_update(user_hash: str, batch: int) -> float:
    """Seconds to write every row's own bytes once more; fetching them is not counted."""
    columns = ("text_cipher", "meta_cipher", "emb_cipher")
    seconds, after = 0.0, UUID(int=0)
    while True:
        with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
            cursor.execute(
                f"SELECT id, enc_key_id, {', '.join(columns)} FROM memory_chunks"  # noqa: S608
                " WHERE user_hash = %s AND id > %s ORDER BY id LIMIT %s",
                [user_hash, after, batch],
            )
            fetched = cursor.fetchall()
        if not fetched:
            return seconds
        after = fetched[-1][0]
        seconds += _write_back(user_hash, fetched)


def _write_back(user_hash: str, fetched: Sequence[tuple[Any, ...]]) -> float:
    arrays = [list(values) for values in zip(*fetched, strict=True)]
    started = perf_counter()
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        cursor.execute(BARE_UPDATE, [*arrays, user_hash])
    return perf_counter() - started


def _analyze() -> None:
    """Statistics of what was just stored, so that the bare UPDATE is planned well."""
    with owner_connection() as conn:
        conn.execute("ANALYZE tenants, memory_chunks, memory_vectors")
