"""A tenant's rows as they are read under one user hash, rebuilt and written under another.

Rows are rebuilt from their seals: text, metadata and the original embedding are opened under the old hash and sealed
under the new one; turned vector, term weights and labels are made anew from them. Ids, times and places are kept.

Whether a row changed since it was copied is told by its version, a hash of its id and of the transaction that wrote it
(`xmin`): no read of the seals, and no column that somebody might forget to set. Versions are only ever compared for
equality, within one process.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import psycopg
from cryptography.exceptions import InvalidTag

from keys.keyring import get_keyring
from keys.runs import FailedRow
from memory import metrics, rows
from memory.building import PlainChunk, build_rows
from memory.exceptions import SealedMemoryError
from memory.rows import ChunkRow
from memory.sealed import JSONCodec, TextCodec
from memory.security import UserHash, aad_for, open_with_key
from memory.vectors import original_from

_text, _json = TextCodec(), JSONCodec()

_VERSION = "hashtextextended(id::text || ' ' || xmin::text, 0)"
_COLUMNS = (
    "id, doc_id, source, chunk_index, text_cipher, meta_cipher, emb_cipher, enc_key_id, created_at, updated_at,"
    f" {_VERSION}"
)
READ_BEHIND = (
    f"SELECT {_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"  # noqa: S608
    " ORDER BY id LIMIT %(limit)s"
)
READ_SOME = f"SELECT {_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s AND id = ANY (%(ids)b::uuid[])"  # noqa: S608
READ_ALL = f"SELECT {_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s"  # noqa: S608
VERSIONS = (
    f"SELECT id, {_VERSION} FROM memory_chunks"  # noqa: S608
    " WHERE user_hash = %(user_hash)s AND id >= %(low)s AND (%(high)s::uuid IS NULL OR id < %(high)s)"
)
# One pass over the tenant tells which windows differ: window number, rows, exclusive or of their versions.
DIGESTS = (
    f"SELECT width_bucket(id, %(lows)b::uuid[]) - 1, count(*), bit_xor({_VERSION})"  # noqa: S608
    " FROM memory_chunks WHERE user_hash = %(user_hash)s GROUP BY 1"
)
DELETE_BEHIND = "DELETE FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"
DELETE_ALL_BUT = (
    "DELETE FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"
    " AND (%(high)s::uuid IS NULL OR id < %(high)s) AND NOT id = ANY (%(keep)b::uuid[])"
)
# A chunk that took a deleted one's place in a document arrives before the deletion has been seen.
DELETE_PLACES = (
    "DELETE FROM memory_chunks c USING unnest(%(doc_ids)b::text[], %(indexes)b::int4[]) AS place (doc_id, chunk_index)"
    " WHERE c.user_hash = %(user_hash)s AND c.doc_id = place.doc_id AND c.chunk_index = place.chunk_index"
)
# Where a batch of rows ends. Ranges of ids, and no join: without statistics the planner joins a tenant with itself.
BATCH_END = (
    "SELECT id FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"
    " ORDER BY id OFFSET %(limit)s LIMIT 1"
)
# Rows under a hash that is no tenant's; never those of a user.
DELETE_ORPHANS = (
    "DELETE FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"
    " AND (%(high)s::uuid IS NULL OR id < %(high)s)"
    " AND NOT EXISTS (SELECT 1 FROM tenants WHERE user_hash = %(user_hash)s)"
)


class RowsUnreadable(SealedMemoryError):
    """Rows of a tenant do not open, so the tenant cannot be moved. `failures` names them."""

    def __init__(self, failures: Sequence[FailedRow]) -> None:
        super().__init__(f"{len(failures)} rows do not open.")
        self.failures = tuple(failures)


class StoredRow(NamedTuple):
    """A row of memory_chunks as it lies there, and its version."""

    id: UUID
    doc_id: str
    source: str
    chunk_index: int
    text_cipher: bytes
    meta_cipher: bytes
    emb_cipher: bytes
    enc_key_id: str
    created_at: datetime
    updated_at: datetime
    version: int


@dataclass(frozen=True)
class OpenedRow:
    """A stored row, opened."""

    chunk: PlainChunk
    original: np.ndarray = field(repr=False)


def read(cursor: psycopg.Cursor[Any], statement: str, **parameters: Any) -> list[StoredRow]:
    """Rows by one of the READ statements, inside the door of their user."""
    cursor.execute(statement, parameters)
    return [StoredRow(*row) for row in cursor.fetchall()]


def rebuild(stored: Sequence[StoredRow], old: UserHash, new: UserHash) -> list[ChunkRow]:
    """The same rows for another hash of the same user. Raises RowsUnreadable naming every one that does not open."""
    if not stored:
        return []
    aad = aad_for(old)
    opened: list[OpenedRow] = []
    failures: list[FailedRow] = []
    for row in stored:
        try:
            opened.append(open_row(row, aad))
        except InvalidTag:
            failures.append(failed_row(old, row))
    if failures:
        raise RowsUnreadable(failures)
    originals = np.stack([row.original for row in opened])
    return list(build_rows(new, [row.chunk for row in opened], originals))


def open_row(row: StoredRow, aad: bytes) -> OpenedRow:
    """Open the three seals of a row. Raises InvalidTag; counts a row that names another key than it is under."""
    text, key = open_with_key(row.text_cipher, aad)
    metadata, _ = open_with_key(row.meta_cipher, aad)
    original, _ = open_with_key(row.emb_cipher, aad)
    metrics.OPENS.inc(3)
    if key.key_id != row.enc_key_id:
        metrics.KEY_ID_DRIFT.inc()
    chunk = PlainChunk(
        doc_id=row.doc_id,
        source=row.source,
        chunk_index=row.chunk_index,
        text=_text.decode(text),
        metadata=_json.decode(metadata),
        id=row.id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
    return OpenedRow(chunk, original_from(original))


def failed_row(user_hash: str, row: StoredRow) -> FailedRow:
    """What is said of a row that does not open."""
    metrics.INTEGRITY_FAILURES.inc()
    held = get_keyring().opens(row.enc_key_id)
    reason = "does not open: changed bytes or another tenant's seal" if held else "its key is not held here"
    return FailedRow("memory_chunks", str(row.id), user_hash[:8], row.enc_key_id, reason)


def insert(cursor: psycopg.Cursor[Any], user_hash: UserHash, rebuilt: Sequence[ChunkRow]) -> None:
    """Write rebuilt rows inside the door of their new hash, each taking its place in its document."""
    for start in range(0, len(rebuilt), rows.ROWS_PER_STATEMENT):
        part = rebuilt[start : start + rows.ROWS_PER_STATEMENT]
        parameters = rows.insert_parameters(user_hash, part)
        cursor.execute("SAVEPOINT places")
        try:
            cursor.execute(rows.INSERT_CHUNKS, parameters)
        except psycopg.errors.UniqueViolation:
            cursor.execute("ROLLBACK TO SAVEPOINT places")
            places = {"doc_ids": [row.doc_id for row in part], "indexes": [row.chunk_index for row in part]}
            cursor.execute(DELETE_PLACES, {"user_hash": user_hash, **places})
            cursor.execute(rows.INSERT_CHUNKS, parameters)
        cursor.execute("RELEASE SAVEPOINT places")
