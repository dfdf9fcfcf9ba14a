"""Rows of memory_chunks as they are stored: read in order of their ids, and opened.

Reindexing, changes, and the move to a new user hash read a tenant's rows through here.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import psycopg

from keys.runs import FailedRow
from memory.exceptions import IntegrityFailure
from memory.index.context import NO_CONTEXT, local_time
from memory.index.names import names_of
from memory.index.rows import CHUNKS, PlainChunk
from memory.index.vectors import original_from
from memory.sealing.codecs import ContextCodec, JSONCodec, TextCodec
from memory.sealing.opening import SealedRow, open_seals
from memory.sealing.row_macs import refuse_altered

_text, _json, _context = TextCodec(), JSONCodec(), ContextCodec()

# Whether a row changed since it was read is told by its version, a hash of its id and of the transaction that wrote it
# (`xmin`): no read of the seals, and no column that somebody might forget to set. Versions are only ever compared for
# equality, within one process.
VERSION = "hashtextextended(id::text || ' ' || xmin::text, 0)"
_COLUMNS = f"{', '.join(CHUNKS.columns)}, {VERSION}"
READ_BEHIND = (
    f"SELECT {_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s AND id >= %(low)s"  # noqa: S608
    " ORDER BY id LIMIT %(limit)s"
)
READ_SOME = f"SELECT {_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s AND id = ANY (%(ids)b::uuid[])"  # noqa: S608
READ_ALL = f"SELECT {_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s"  # noqa: S608
# To be changed, under the tenant's lock. The rows are locked as well, for a rotation re-seals them without that lock;
# it skips locked rows, or waits for the tenant first.
LOCK_SOME = f"{READ_SOME} FOR NO KEY UPDATE"
LOCK_DOCUMENT = (
    f"SELECT {_COLUMNS} FROM memory_chunks WHERE user_hash = %(user_hash)s AND doc_id = %(doc_id)s"  # noqa: S608
    " ORDER BY chunk_index LIMIT %(limit)s FOR NO KEY UPDATE"
)


class StoredRow(NamedTuple):
    """A row of memory_chunks as it lies, names in the tenant's form, in the order of `CHUNKS`, and its version."""

    id: UUID
    doc_id: str
    source: str
    chunk_index: int
    text_cipher: bytes
    meta_cipher: bytes
    emb_cipher: bytes
    context_cipher: bytes | None
    enc_key_id: str
    chunk_mac: bytes | None
    created_at: datetime
    updated_at: datetime
    occurred_at: datetime | None
    expires_at: datetime | None
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


def open_row(row: StoredRow, user_hash: str) -> OpenedRow:
    """Open the seals of a row, whose embedding may have been left behind. Raises IntegrityFailure, and its subclass
    RowAltered where the row is not as it was written."""
    text, metadata, original, context = open_seals(
        SealedRow(user_hash, "memory_chunks", (user_hash, row.id), row.enc_key_id),
        (row.text_cipher, _text.decode),
        (row.meta_cipher, _json.decode),
        (row.emb_cipher, original_from),
        (row.context_cipher, _context.decode),
    ).values
    refuse_altered(user_hash, row, row.chunk_mac, row.emb_cipher, row.enc_key_id)
    context = context or NO_CONTEXT
    doc_id, source = names_of(row.doc_id, row.source, context)
    chunk = PlainChunk(
        doc_id=doc_id,
        source=source,
        chunk_index=row.chunk_index,
        text=text,
        metadata=metadata,
        title=context.title,
        author=context.author,
        occurred_at=local_time(row.occurred_at, context),
        expires_at=row.expires_at,
        id=row.id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
    return OpenedRow(chunk, original)


def failed_row(failure: IntegrityFailure) -> FailedRow:
    """A row that does not open, as a run reports it. The row of a tenant is named by the prefix of its hash."""
    user_hash, *row = failure.pk
    shown = str(row[0]) if row else user_hash[:8]
    return FailedRow(failure.model, shown, user_hash[:8], failure.key_id or "", failure.reason)
