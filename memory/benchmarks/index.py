"""The write path beside the same rows written plainly: no seals, no row-level security, no rotation, no keywords."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
from django.conf import settings

from memory import rows
from memory.benchmarks.command import progress
from memory.benchmarks.plain_tables import plain_tables
from memory.benchmarks.report import Report, Row, Target, at_least
from memory.benchmarks.synthetic import Synthetic
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import percentile
from memory.indexing import Chunk, Document, count_chunks, index_documents, lock_tenant
from memory.rows import ChunkRow
from memory.sealed import JSONCodec, SealedBytes
from memory.security import user_hashes

PRODUCT = (
    "product = index_documents(): checks, one transaction per batch behind the tenant's door, the old documents"
    " deleted, text, metadata and embedding sealed, the vector turned, the keywords weighed, chunks counted."
)
PLAIN = (
    "plain = the same statements through psycopg on copies of both tables without row-level security: lock, delete,"
    " insert and count in one transaction per batch; text, metadata and vector as they are, no keywords."
)
RATIO = "ratio = median over pairs of batches of plain time / product time, the two taking turns; 1 is no overhead."


@dataclass(frozen=True)
class Load:
    """How much is written: `rows` documents of one chunk, in batches, spread evenly over tenants."""

    rows: int
    batch: int
    tenants: int
    words: int

    @property
    def batches(self) -> int:
        return -(-self.rows // self.batch)


def measure_index(load: Load, *, verbosity: int = 1) -> Report:
    """Write the load twice, batch by batch in turns, and erase it again."""
    users = [benchmark_user(f"index-{number}") for number in range(load.tenants)]
    with plain_tables() as plain, throwaway_tenants(users):
        times = np.array(list(_write_in_turns(plain, load, users, verbosity)))
    row = summary(load, times)
    return Report("benchmark_index", [row], targets(row), [PRODUCT, PLAIN, RATIO])


def summary(load: Load, times: np.ndarray) -> Row:
    """One row; `times` are seconds of product and plain per batch, (batches, 2)."""
    product, plain = times[:, 0], times[:, 1]
    return {
        "rows": load.rows,
        "batch": load.batch,
        "words": load.words,
        "rows_s": load.rows / product.sum(),
        "plain_rows_s": load.rows / plain.sum(),
        "ratio": percentile(plain / product, 50),
        "batch_p50_ms": percentile(product, 50) * 1000,
        "batch_p95_ms": percentile(product, 95) * 1000,
        "plain_batch_p50_ms": percentile(plain, 50) * 1000,
    }


def targets(row: Row) -> list[Target]:
    """The bounds of the write path."""
    return [
        at_least("write path: ratio to plain rows", row["ratio"], 0.7, "×"),
        at_least("write path: throughput", row["rows_s"], 2500, "rows/s"),
    ]


def write_plain(conn: psycopg.Connection[Any], user_id: str, documents: Sequence[Document]) -> None:
    """Store documents, whose chunks bring their embeddings, as they are, through the product's statements."""
    user_hash = user_hashes(user_id)[0]
    plain_rows = [row for document in documents for row in _plain_rows(document)]
    with conn.transaction(), conn.cursor(binary=True) as cursor:
        lock_tenant(cursor, user_id, user_hash)
        cursor.execute(rows.DELETE_DOCUMENTS, [user_hash, [document.doc_id for document in documents]])
        cursor.fetchall()
        for first in range(0, len(plain_rows), rows.ROWS_PER_STATEMENT):
            batch = plain_rows[first : first + rows.ROWS_PER_STATEMENT]
            cursor.execute(rows.INSERT_CHUNKS, rows.insert_parameters(user_hash, batch))
            cursor.fetchall()
        count_chunks(cursor, user_hash, len(plain_rows))


def _plain_rows(document: Document) -> Iterator[ChunkRow]:
    for index, chunk in enumerate(document.chunks):
        vector = np.asarray(chunk.embedding, dtype=np.float32)
        yield ChunkRow(
            doc_id=document.doc_id,
            source=document.source,
            chunk_index=index,
            # The columns are made for seals; here they hold the bytes themselves.
            text_cipher=SealedBytes(chunk.text.encode("utf-8")),
            meta_cipher=SealedBytes(JSONCodec().encode(document.metadata)),
            emb_cipher=SealedBytes(vector.tobytes()),
            created_at=None,
            embedding=vector,
            lexical=None,
        )


def _write_in_turns(
    plain: psycopg.Connection[Any], load: Load, users: Sequence[str], verbosity: int
) -> Iterator[tuple[float, float]]:
    source = Synthetic(settings.MEMORY_EMBEDDING_DIM)
    # One batch more than is counted: the first pays for connections, caches and the vocabulary of the keywords.
    for number in progress(range(-1, load.batches), "Writing", verbosity=verbosity, unit="batch"):
        user_id = users[number % len(users)]
        documents = _documents(source, load, number)
        started = perf_counter()
        index_documents(user_id=user_id, documents=documents)
        between = perf_counter()
        write_plain(plain, user_id, documents)
        if number >= 0:
            yield between - started, perf_counter() - between


def _documents(source: Synthetic, load: Load, number: int) -> list[Document]:
    count = load.batch if number < 0 else min(load.batch, load.rows - number * load.batch)
    vectors, texts = source.vectors(count), source.texts(count, load.words)
    return [
        Document(f"{number}-{i}", "benchmark", (Chunk(text, vector),), {"batch": number, "tags": ["a", "b"]})
        for i, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
