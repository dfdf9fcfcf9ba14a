"""Indexes the tail of an outgrown tenant: rows that its graph and postings do not hold yet, a few with every write.

A tenant above MEMORY_EXACT_SCAN_MAX rows is answered from the vector graph and the term postings, and from an exact
scan of the rows that are not there yet: the tail. So an answer is complete at any moment, whoever wrote the rows and
however long the tail is, and all that this module has to do is to keep the tail short.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import DatabaseError
from pgvector import SparseVector

from memory.index.tables import Table, insert
from memory.rls import tenant_transaction, tenant_transaction_by_hash
from memory.tenancy.cursors import binary_cursor

logger = logging.getLogger(__name__)

GRAPH_INDEX = "memory_vectors_graph"

# A write of n rows indexes 2 n + 8 of the tail: tails shrink under every mix of writes, and no write waits long for it.
INDEXED_PER_ROW = 2
INDEXED_PER_WRITE = 8
ROWS_PER_STEP = 200

# The chunks are locked first, as a deletion locks them, and nothing is waited for: the postings refer to the chunks, so
# whoever held the vectors alone would wait for a deletion that waits for the vectors.
TAIL = """
SELECT v.id, v.lexical, v.labels FROM memory_vectors v JOIN memory_chunks c ON c.user_hash = v.user_hash AND c.id = v.id
WHERE v.user_hash = %s AND NOT v.outgrown LIMIT %s
FOR KEY SHARE OF c SKIP LOCKED FOR UPDATE OF v SKIP LOCKED
"""
TERMS = Table("memory_terms", {"term": "int4", "id": "uuid", "weight": "float8"})
TERMS_PER_STATEMENT = 500
MARK = "UPDATE memory_vectors SET outgrown = true WHERE user_hash = %s AND id = ANY (%b::uuid[])"


def keep_up(*, user_id: str, written: int) -> int:
    """Index a share of an outgrown tenant's tail after a write of `written` rows; returns how many rows.

    The write is done and committed: whatever goes wrong here is logged, and the tail is scanned until the next time.
    """
    try:
        return index_tail(user_id=user_id, limit=INDEXED_PER_ROW * written + INDEXED_PER_WRITE)
    except DatabaseError as error:
        logger.warning("rows wait outside the index", extra={"reason": type(error).__name__})
        return 0


def index_tail(*, limit: int, user_id: str | None = None, user_hash: str | None = None) -> int:
    """Index up to `limit` rows of a user's tail, a few hundred a transaction; returns how many.

    The user is given by id, or, for maintenance, by hash.
    """
    indexed = 0
    while indexed < limit:
        door = tenant_transaction(user_id) if user_hash is None else tenant_transaction_by_hash(user_hash)
        step = _index_step(door, min(ROWS_PER_STEP, limit - indexed))
        indexed += step
        if step < ROWS_PER_STEP:
            break
    return indexed


def has_outgrown(chunk_count: int) -> bool:
    """Whether a tenant of that many rows is answered from the indexes."""
    return chunk_count > settings.MEMORY_EXACT_SCAN_MAX


def _index_step(door: AbstractContextManager[str], limit: int) -> int:
    with door as user_hash, binary_cursor() as cursor:
        cursor.execute("SELECT chunk_count FROM tenants WHERE user_hash = %s", [user_hash])
        row = cursor.fetchone()
        if row is None or not has_outgrown(row[0]):
            return 0
        return index_rows_of_tail(cursor, user_hash, limit)


def index_rows_of_tail(cursor: psycopg.Cursor[Any], user_hash: str, limit: int) -> int:
    """Index up to `limit` rows inside the open door of their hash, oldest first; returns how many."""
    cursor.execute(TAIL, [user_hash, limit])
    tail = cursor.fetchall()
    insert(cursor.connection, user_hash, _postings(tail), TERMS, size=TERMS_PER_STATEMENT)
    cursor.execute(MARK, [user_hash, [chunk_id for chunk_id, *_ in tail]])
    return len(tail)


class Posting(NamedTuple):
    """A row of memory_terms, but for the user hash."""

    term: int
    id: UUID
    weight: float


def label_term(label: int) -> int:
    """Under which term a label is posted: below 0, where no keyword is. Two may meet there: rows are asked again."""
    return -1 - label % 2**31


def label_postings(labels: Iterable[int]) -> dict[int, float]:
    """The postings of a row's labels, {term: weight}: no keyword, so without any weight."""
    return {label_term(label): 0.0 for label in labels}


def _postings(tail: Sequence[tuple[UUID, SparseVector | None, Sequence[int]]]) -> Iterator[Posting]:
    for chunk_id, lexical, labels in tail:
        for term, weight in label_postings(labels).items():
            yield Posting(term, chunk_id, weight)
        if lexical is not None:
            for term, weight in zip(lexical.indices(), lexical.values(), strict=True):
                yield Posting(term, chunk_id, weight)
