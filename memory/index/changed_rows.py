"""Writes changes of stored chunks under the tenant's lock: metadata where it lies, everything else as a new row.

A row whose text or place changes is deleted and inserted again under its id, as a document that is replaced is. So all
that it is found by is made by the code that makes every row, and what the old one was found by goes with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from memory.index.labels import labels as labels_of
from memory.index.recipe import Recipe
from memory.index.rows import CHUNKS, VECTORS, PlainChunk, array_text, build_rows, insert_rows
from memory.index.stored_macs import authenticate_index, new_chunk_mac
from memory.index.stored_rows import StoredRow
from memory.sealing.codecs import JSONCodec, SealedBytes
from memory.sealing.fields import seal_value
from memory.sealing.row_macs import row_keys
from memory.security import UserHash
from memory.tenancy.row_set import COUNTED_COLUMNS, RowSetChange

DELETE_POSTINGS = "DELETE FROM memory_terms WHERE user_hash = %s AND id = ANY (%b::uuid[])"
DELETE_CHUNKS = f"DELETE FROM memory_chunks WHERE user_hash = %s AND id = ANY (%b::uuid[]) RETURNING {COUNTED_COLUMNS}"  # noqa: S608
METADATA_COLUMNS = ("meta_cipher", "updated_at", "chunk_mac")

_json = JSONCodec()


@dataclass(frozen=True)
class MetadataRow:
    """The columns of a row that follow from its metadata."""

    id: UUID | None
    meta_cipher: SealedBytes
    updated_at: datetime
    chunk_mac: bytes | None
    labels: str

    @classmethod
    def of(cls, chunk: PlainChunk, stored: StoredRow, user_hash: UserHash, recipe: Recipe) -> "MetadataRow":
        meta_cipher, updated_at = seal_value(_json.encode(chunk.metadata), user_hash), chunk.updated_at
        now = stored._replace(meta_cipher=meta_cipher, updated_at=updated_at or stored.updated_at)
        return cls(
            id=chunk.id,
            meta_cipher=meta_cipher,
            updated_at=now.updated_at,
            chunk_mac=new_chunk_mac(row_keys(user_hash), now),
            labels=_labels(chunk, user_hash, recipe),
        )


def delete_rows(cursor: psycopg.Cursor[Any], user_hash: UserHash, ids: Sequence[UUID], change: RowSetChange) -> None:
    """Delete chunks with all that they are found by, and take them from `change`."""
    if ids:
        cursor.execute(DELETE_CHUNKS, [user_hash, list(ids)])
        change.removed(cursor.fetchall())


def insert_embedded(
    cursor: psycopg.Cursor[Any],
    user_hash: UserHash,
    chunks: Sequence[tuple[PlainChunk, Any]],
    recipe: Recipe,
    change: RowSetChange,
) -> None:
    """Store chunks with their embeddings, float32 (d,), as new rows that are made by `recipe`; an id is kept. Adds them
    to `change`."""
    if chunks:
        originals = np.stack([original for _, original in chunks])
        rows = build_rows(user_hash, [chunk for chunk, _ in chunks], originals, recipe)
        insert_rows(cursor.connection, user_hash, rows, change)


def update_metadata(
    cursor: psycopg.Cursor[Any],
    user_hash: UserHash,
    changes: Sequence[tuple[StoredRow, PlainChunk, PlainChunk]],
    recipe: Recipe,
    change: RowSetChange,
) -> None:
    """Seal the metadata of chunks anew, and have their labels follow. `changes`: each chunk as its locked row,
    which was opened, before and after.

    Only for rows that name the sealing key, for all seals of a row stand under one.
    """
    if not changes:
        return
    rows = [MetadataRow.of(after, stored, user_hash, recipe) for stored, _, after in changes]
    for row, (stored, _, _) in zip(rows, changes, strict=True):
        change.remove(stored)
        change.add(stored._replace(updated_at=row.updated_at, chunk_mac=row.chunk_mac))
    cursor.execute(*CHUNKS.updating(user_hash, rows, METADATA_COLUMNS), prepare=len(rows) == 1)
    before = [_labels(chunk, user_hash, recipe) for _, chunk, _ in changes]
    relabelled = [row for row, labels in zip(rows, before, strict=True) if row.labels != labels]
    if relabelled:
        # Labels are posted as well: back into the tail, from which the row is posted anew.
        cursor.execute(DELETE_POSTINGS, [user_hash, [row.id for row in relabelled]])
        updating = VECTORS.updating(user_hash, relabelled, ("labels",), also="outgrown = false")
        cursor.execute(*updating, prepare=len(relabelled) == 1)
        stored_by_id = {stored.id: stored for stored, _, _ in changes}
        authenticate_index(cursor, user_hash, [stored_by_id[row.id] for row in relabelled if row.id])


def _labels(chunk: PlainChunk, user_hash: UserHash, recipe: Recipe) -> str:
    return array_text(labels_of(user_hash, chunk.metadata, recipe))
