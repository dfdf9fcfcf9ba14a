"""Measures the write path against plain writes of the same rows, without seals, row-level security and rotation."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import psycopg
from django.conf import settings

from keys.keyring import get_keyring
from memory.benchmarks.command import progress
from memory.benchmarks.plain_tables import plain_tables
from memory.benchmarks.report import Report, Row, Target, at_least, less_than
from memory.benchmarks.synthetic import Synthetic
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.benchmarks.timing import percentile
from memory.documents.document import Chunk, Document
from memory.index import rows
from memory.index.recipe import configured
from memory.index.rows import ChunkRow
from memory.index.uuid7 import uuid7s
from memory.indexing import index_documents
from memory.sealing.codecs import JSONCodec, SealedBytes
from memory.security import user_hashes
from memory.tenancy import tenant_row
from memory.tenancy.row_set import RowSetChange

EVERYTHING, NO_KEYWORDS = "everything on", "keywords off"
HEADERS = "everything on, with title, author and time"
NO_MACS = "everything on, but MACs and digest"
PLAIN, PLAIN_WORDS = "plain", "plain, full-text search"
NOTES = (
    "everything on = index_documents(): checks, one transaction per batch behind the tenant's door, the old documents"
    " deleted, text, metadata and embedding sealed, the vector turned, the keywords weighed, chunks counted.",
    "with title, author and time = the same documents, each with a context: one more seal a row, a header's keywords."
    " of everything on = median over batches of that one's time / this time.",
    "keywords off = the same for users without a keyword index.",
    "but MACs and digest = the same for users whose rows get no MACs, and whose set of them no digest. cost of MACs ="
    " median over batches of the time of everything on / this time, less 1.",
    "plain = the same statements through psycopg on copies of both tables without row-level security and constraints:"
    " lock, delete, insert and count in one transaction per batch; text, metadata and vector as they are, no keywords."
    " full-text search: with a generated tsvector under a GIN index.",
    "ratio = median over batches of plain time / this time, all taking turns; 1 is as fast as plain.",
)

Writer = Callable[[str, Sequence[Document]], object]


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
    """Write each batch of the load by every writer in turn, and erase everything again."""
    users = [benchmark_user(f"index-{number}") for number in range(load.tenants)]
    with (
        plain_tables() as plain,
        plain_tables("benchmark_plain_words", full_text=True) as words,
        throwaway_tenants(
            [named(user) for user in users for named in (str, without_keywords, without_macs, with_headers)]
        ),
    ):
        writers: dict[str, Writer] = {
            EVERYTHING: write_product,
            NO_KEYWORDS: write_without_keywords,
            PLAIN: partial(write_plain, plain),
            PLAIN_WORDS: partial(write_plain, words),
            NO_MACS: write_without_macs,
            HEADERS: write_with_headers,
        }
        times = np.array(list(_write_in_turns(writers, load, users, verbosity)))
    found = [summary(load, name, times[:, place], times[:, 2]) for place, name in enumerate(writers)]
    found[-2] = {**found[-2], "cost of MACs": percentile(times[:, 0] / times[:, -2], 50) - 1}
    found[-1] = {**found[-1], "of everything on": percentile(times[:, 0] / times[:, -1], 50)}
    return Report("benchmark_index", found, targets(found), list(NOTES))


def summary(load: Load, name: str, seconds: np.ndarray, plain: np.ndarray) -> Row:
    """One row; seconds of one way and of the plain one, float64 (batches,)."""
    return {
        "write path": name,
        "rows": load.rows,
        "batch": load.batch,
        "words": load.words,
        "rows_s": load.rows / seconds.sum(),
        "batch_p50_ms": percentile(seconds, 50) * 1000,
        "batch_p95_ms": percentile(seconds, 95) * 1000,
        "ratio": percentile(plain / seconds, 50),
    }


def targets(rows: Sequence[Row]) -> list[Target]:
    """The bounds of the write path."""
    by_name = {row["write path"]: row for row in rows}
    return [
        *(at_least(f"{name}: ratio to plain", by_name[name]["ratio"], 0.7, "×") for name in (EVERYTHING, NO_KEYWORDS)),
        *(at_least(name, row["of everything on"], 0.95, "×") for name, row in by_name.items() if name == HEADERS),
        *(less_than("cost of MACs", row["cost of MACs"], 0.10, "") for name, row in by_name.items() if name == NO_MACS),
        at_least(f"{EVERYTHING}: throughput", by_name[EVERYTHING]["rows_s"], 2500, "rows/s"),
    ]


def without_keywords(user_id: str) -> str:
    """The id of a benchmark user's counterpart without a keyword index."""
    return f"{user_id}-no-keywords"


def write_product(user_id: str, documents: Sequence[Document]) -> None:
    """Store documents as the product does."""
    index_documents(user_id=user_id, documents=documents)


def write_without_keywords(user_id: str, documents: Sequence[Document]) -> None:
    """Store documents as the product does for a user who was new while MEMORY_LEXICAL_INDEX was off."""
    settings.MEMORY_LEXICAL_INDEX, before = False, settings.MEMORY_LEXICAL_INDEX
    try:
        index_documents(user_id=without_keywords(user_id), documents=documents)
    finally:
        settings.MEMORY_LEXICAL_INDEX = before


def without_macs(user_id: str) -> str:
    """The id of a benchmark user's counterpart whose rows have no MACs."""
    return f"{user_id}-no-macs"


def write_without_macs(user_id: str, documents: Sequence[Document]) -> None:
    """Store documents as the product did before rows had MACs."""
    authenticate, settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC, before = (
        ChunkRow.authenticate,
        True,
        settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC,
    )
    ChunkRow.authenticate = lambda row, keys: None  # type: ignore[method-assign, assignment]
    try:
        index_documents(user_id=without_macs(user_id), documents=documents)
    finally:
        ChunkRow.authenticate = authenticate  # type: ignore[method-assign]
        settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC = before


def with_headers(user_id: str) -> str:
    """The id of a benchmark user's counterpart whose documents have a context."""
    return f"{user_id}-headers"


def write_with_headers(user_id: str, documents: Sequence[Document]) -> None:
    """Store documents as turns of a conversation, twenty a session."""
    index_documents(user_id=with_headers(user_id), documents=list(map(_in_context, range(len(documents)), documents)))


def _in_context(number: int, document: Document) -> Document:
    session, speaker = divmod(number, 20)
    author = "Alice" if speaker % 2 else "Bob"
    chunks = tuple(replace(chunk, author=author) for chunk in document.chunks)
    occurred_at = datetime(2022, 6, 1, 9, 30, tzinfo=UTC) + timedelta(days=session)
    return replace(document, chunks=chunks, title=f"Session {session}", occurred_at=occurred_at)


def write_plain(conn: psycopg.Connection[Any], user_id: str, documents: Sequence[Document]) -> None:
    """Store documents, whose chunks bring their embeddings, as they are, through the product's statements."""
    user_hash = user_hashes(user_id)[0]
    plain_rows = list(_plain_rows(documents))
    with conn.transaction(), conn.cursor(binary=True) as cursor:
        tenant = tenant_row.lock_or_create(cursor, user_id, user_hash, configured().as_text())
        cursor.execute(rows.DELETE_DOCUMENTS, [user_hash, [document.doc_id for document in documents]])
        cursor.fetchall()
        change = RowSetChange(user_hash)
        rows.insert_rows(conn, user_hash, plain_rows, change)
        cursor.execute(*tenant_row.change_rows(user_hash, tenant, change))


def _plain_rows(documents: Sequence[Document]) -> Iterator[ChunkRow]:
    key_id, now, metadata = get_keyring().sealing.key_id, datetime.now(UTC), JSONCodec()
    chunks = [(document, index, chunk) for document in documents for index, chunk in enumerate(document.chunks)]
    for new_id, (document, index, chunk) in zip(uuid7s(len(chunks)), chunks, strict=True):
        vector = np.asarray(chunk.embedding, dtype=np.float32)
        yield ChunkRow(
            id=new_id,
            doc_id=document.doc_id,
            source=document.source,
            chunk_index=index,
            # The columns are made for seals; here they hold the bytes themselves.
            text_cipher=SealedBytes(chunk.text.encode("utf-8")),
            meta_cipher=SealedBytes(metadata.encode(document.metadata)),
            emb_cipher=SealedBytes(vector.tobytes()),
            context_cipher=None,
            enc_key_id=key_id,
            chunk_mac=None,
            created_at=now,
            updated_at=now,
            occurred_at=None,
            expires_at=None,
            embedding=vector,
            lexical=None,
            labels="{}",
            recipe_id=0,
            vector_mac=None,
        )


def _write_in_turns(
    writers: Mapping[str, Writer], load: Load, users: Sequence[str], verbosity: int
) -> Iterator[list[float]]:
    source = Synthetic(settings.MEMORY_EMBEDDING_DIM)
    # One batch more than is counted: the first pays for connections, caches and the vocabulary of the keywords.
    for number in progress(range(-1, load.batches), "Writing", verbosity=verbosity, unit="batch"):
        user_id = users[number % len(users)]
        documents = _documents(source, load, number)
        times = [_seconds(partial(write, user_id, documents)) for write in writers.values()]
        if number >= 0:
            yield times


def _seconds(call: Callable[[], object]) -> float:
    started = perf_counter()
    call()
    return perf_counter() - started


def _documents(source: Synthetic, load: Load, number: int) -> list[Document]:
    count = load.batch if number < 0 else min(load.batch, load.rows - number * load.batch)
    vectors, texts = source.vectors(count), source.texts(count, load.words)
    return [
        Document(f"{number}-{i}", "benchmark", (Chunk(text, vector),), {"batch": number, "tags": ["a", "b"]})
        for i, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
