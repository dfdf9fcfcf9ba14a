"""Measures sealing and opening against plain AESGCM calls, on one thread."""

import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from memory.benchmarks.report import Report, Row, Target, at_least, less_than
from memory.benchmarks.tenants import benchmark_user
from memory.benchmarks.timing import latencies, nanoseconds, percentile
from memory.sealing.row_macs import new_version, refuse_altered, row_keys
from memory.security import NONCE_BYTES, open_sealed, seal, user_hashes

SIZES = (32, 1024, 65536)
RATIO_SIZE = 1024
ROWS, READING = 24, "compare row MACs"
# Short enough that a disturbance of the machine hits both sides of a pair, long enough to be timed as one.
CALLS_PER_TURN = 50
RAW = (
    "raw = a function of one line: os.urandom(12) + AESGCM.encrypt and the concatenation, or two slices and"
    " AESGCM.decrypt, with one AESGCM object made beforehand, the same key size and the same 64-byte AAD."
)
RATIO = "ratio = median over turns of raw time / product time, the two taking turns of 50 calls; 1 is no overhead."
MACS = (
    f"{READING} = the MACs of {ROWS} rows of {RATIO_SIZE:,} B of text compared, as a query does for its candidates;"
    " raw = hmac.digest of the same messages."
)
PERCENTILES = "p50, p95 and p99 are those of single calls, the clock's own cost (about 0.1 µs) included."


@dataclass(frozen=True)
class Pair:
    """The product's call and the raw one that does the same work."""

    operation: str
    size: int
    product: Callable[[], Any]
    raw: Callable[[], Any]


def measure_crypto(*, seconds: float) -> Report:
    """Measure seal and open_sealed at each size for about `seconds` each."""
    measured = [*(pair for size in SIZES for pair in pairs(size)), row_macs()]
    rows = [measure_pair(pair, seconds) for pair in measured]
    return Report("benchmark_crypto", rows, targets(rows), [RAW, RATIO, MACS, PERCENTILES])


def pairs(size: int) -> list[Pair]:
    """Sealing and opening of `size` random bytes, each beside its raw twin."""
    data, aad = os.urandom(size), os.urandom(32).hex().encode("ascii")
    cipher = AESGCM(AESGCM.generate_key(256))
    sealed, raw_sealed = seal(data, aad), raw_seal(cipher, data, aad)
    return [
        Pair("seal", size, partial(seal, data, aad), partial(raw_seal, cipher, data, aad)),
        Pair("open_sealed", size, partial(open_sealed, sealed, aad), partial(raw_open, cipher, raw_sealed, aad)),
    ]


def row_macs() -> Pair:
    """The MACs of the rows that a query reads, compared."""
    user_hash, now = user_hashes(benchmark_user("macs"))[0], datetime.now(UTC)
    seals = {"text_cipher": os.urandom(RATIO_SIZE), "meta_cipher": os.urandom(80), "context_cipher": os.urandom(60)}
    times = {"created_at": now, "updated_at": now, "occurred_at": None, "expires_at": None}
    keys, digest = row_keys(user_hash), os.urandom(32)
    rows = []
    for number in range(ROWS):
        row = SimpleNamespace(id=uuid4(), doc_id=f"document {number}", source="chat", chunk_index=0, **seals, **times)
        rows.append((row, keys.chunk_mac(row, digest, new_version())))
    message = os.urandom(sum(map(len, seals.values())) + 200)
    key = os.urandom(32)
    return Pair(
        READING,
        ROWS * len(message),
        lambda: [refuse_altered(user_hash, row, mac) for row, mac in rows],
        lambda: [hmac.digest(key, message, "sha256") for _ in rows],
    )


def raw_seal(cipher: AESGCM, data: bytes, aad: bytes) -> bytes:
    """Seal without a keyring."""
    return (nonce := os.urandom(NONCE_BYTES)) + cipher.encrypt(nonce, data, aad)


def raw_open(cipher: AESGCM, blob: bytes, aad: bytes) -> bytes:
    """Open without a keyring."""
    return cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], aad)


def measure_pair(pair: Pair, seconds: float) -> Row:
    """One row: throughput of both sides, their ratio, and the product's latencies in µs."""
    product, raw = _turns(pair, seconds)
    times = nanoseconds(pair.product, CALLS_PER_TURN * len(product)) / 1000
    return {
        "operation": pair.operation,
        "bytes": pair.size,
        "ops_s": round(1e9 * CALLS_PER_TURN / float(np.median(product))),
        "raw_ops_s": round(1e9 * CALLS_PER_TURN / float(np.median(raw))),
        "ratio": percentile(raw / product, 50),
        **{f"{name}_us": value for name, value in latencies(times, 50, 95, 99).items()},
    }


def targets(rows: list[Row]) -> list[Target]:
    """The bounds that seal and open_sealed have to keep; rows as `measure_pair` makes them."""
    found = []
    for row in rows:
        if row["operation"] == READING:
            found.append(less_than(f"{READING}, {ROWS} rows: p50", row["p50_us"], 300, "µs"))
            continue
        name = f"{row['operation']}, {row['bytes']:,} B"
        if row["bytes"] == RATIO_SIZE:
            found.append(at_least(f"{name}: ratio to raw AESGCM", row["ratio"], 0.8, "×"))
            found.append(less_than(f"{name}: p99", row["p99_us"], 50, "µs"))
        found.append(at_least(f"{name}: throughput", row["ops_s"], 5000, "ops/s"))
        found.append(less_than(f"{name}: p99, floor", row["p99_us"], 1000, "µs"))
    return found


def _turns(pair: Pair, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds of each turn of CALLS_PER_TURN calls, product and raw alternating, float64 (turns,) each."""
    product: list[int] = []
    raw: list[int] = []
    _turn(pair.product), _turn(pair.raw)  # warm
    until = perf_counter_ns() + seconds * 1e9
    while perf_counter_ns() < until or not product:
        product.append(_turn(pair.product))
        raw.append(_turn(pair.raw))
    return np.array(product, dtype=np.float64), np.array(raw, dtype=np.float64)


def _turn(call: Callable[[], Any]) -> int:
    started = perf_counter_ns()
    for _ in range(CALLS_PER_TURN):
        call()
    return perf_counter_ns() - started
