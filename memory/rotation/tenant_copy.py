"""Rebuilds a tenant's rows under another user hash of the same user, and writes them there.

Text, metadata and the original embedding are opened under the old hash and sealed under the new one. Rotated vector,
term weights and labels are computed from them again. Ids, times and places in documents are kept.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from keys.runs import FailedRow
from memory.exceptions import IntegrityFailure, SealedMemoryError
from memory.index import rows
from memory.index.recipe import Recipe
from memory.index.rows import ChunkRow, build_rows
from memory.index.stored_rows import (
    VERSION,
    OpenedRow,
    StoredRow,
    failed_row,
    open_row,
)
from memory.security import UserHash
from memory.tenancy.row_set import COUNTED_COLUMNS, CountedRow, RowSetChange

VERSIONS = (
    f"SELECT id, {VERSION} FROM memory_chunks"  # noqa: S608
    " WHERE user_hash = %(user_hash)s AND id >= %(low)s AND (%(high)s::uuid IS NULL OR id < %(high)s)"
)
# A digest of every window in one pass over the tenant: window number, rows, exclusive or of their versions.
DIGESTS = (
    f"SELECT width_bucket(id, %(lows)b::uuid[]) - 1, count(*), bit_xor({VERSION})"  # noqa: S608
    " FROM memory_chunks WHERE user_hash = %(user_hash)s GROUP BY 1"
)
COUNTED = (
    f"SELECT {COUNTED_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"  # noqa: S608
    " AND (%(high)s::uuid IS NULL OR id < %(high)s)"
)
DELETE_BEHIND = "DELETE FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"
DELETE_ALL_BUT = (
    "DELETE FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"  # noqa: S608
    f" AND (%(high)s::uuid IS NULL OR id < %(high)s) AND NOT id = ANY (%(keep)b::uuid[]) RETURNING {COUNTED_COLUMNS}"
)
# A chunk that took a deleted one's place in a document arrives before the deletion has been seen.
DELETE_PLACES = (
    "DELETE FROM memory_chunks c USING unnest(%(doc_ids)b::text[], %(indexes)b::int4[]) AS place (doc_id, chunk_index)"  # noqa: S608
    " WHERE c.user_hash = %(user_hash)s AND c.doc_id = place.doc_id AND c.chunk_index = place.chunk_index"
    f" RETURNING {', '.join(f'c.{column}' for column in COUNTED_COLUMNS.split(', '))}"
)


class RowsUnreadable(SealedMemoryError):
    """Rows of a tenant do not open, so the tenant cannot be moved. `failures` names them."""

    def __init__(self, failures: Sequence[FailedRow]) -> None:
        super().__init__(f"{len(failures)} rows do not open.")
        self.failures = tuple(failures)


def rebuild(stored: Sequence[StoredRow], old: UserHash, new: UserHash, recipe: Recipe) -> list[ChunkRow]:
    """The rows for another hash of the same user, made by a recipe from their stored embeddings.

    Raises RowsUnreadable, which names every row that does not open.
    """
    if not stored:
        return []
    opened: list[OpenedRow] = []
    failures: list[FailedRow] = []
    for row in stored:
        try:
            opened.append(open_row(row, old))
        except IntegrityFailure as failure:
            failures.append(failed_row(failure))
    if failures:
        raise RowsUnreadable(failures)
    originals = np.stack([row.original for row in opened])
    return list(build_rows(new, [row.chunk for row in opened], originals, recipe))


def row_set(cursor: psycopg.Cursor[Any], user_hash: UserHash, low: UUID, high: UUID | None) -> RowSetChange:
    """The set of a hash's rows in a range of ids, inside its door."""
    cursor.execute(COUNTED, {"user_hash": user_hash, "low": low, "high": high})
    rows = RowSetChange(user_hash)
    for row in cursor.fetchall():
        rows.add(CountedRow(*row))
    return rows


def insert(cursor: psycopg.Cursor[Any], user_hash: UserHash, rebuilt: Sequence[ChunkRow]) -> RowSetChange:
    """Write rebuilt rows inside the door of their new hash; each replaces a row at its place in its document. Returns
    what that changes in the set of rows."""
    change = RowSetChange(user_hash)
    cursor.execute("SAVEPOINT places")
    try:
        rows.insert_rows(cursor.connection, user_hash, rebuilt, RowSetChange(user_hash))
    except psycopg.errors.UniqueViolation:
        cursor.execute("ROLLBACK TO SAVEPOINT places")
        places = {"doc_ids": [row.doc_id for row in rebuilt], "indexes": [row.chunk_index for row in rebuilt]}
        cursor.execute(DELETE_PLACES, {"user_hash": user_hash, **places})
        change.removed(cursor.fetchall())
        rows.insert_rows(cursor.connection, user_hash, rebuilt, RowSetChange(user_hash))
    cursor.execute("RELEASE SAVEPOINT places")
    for row in rebuilt:
        change.add_made(row.element)
    return change
