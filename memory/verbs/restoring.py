"""Stores exported chunks again as they were: with their ids, places and times, and with embeddings that are given.

A document that is there already is left alone, as any import leaves it, and a later line of a long document is stored
where the document ends with the chunk that stood before it. So an import that was stopped is simply run again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from keys import nonce_budget
from memory import metrics
from memory.documents.exported import ExportedPart
from memory.index import rows
from memory.index.changed_rows import insert_embedded
from memory.index.context import embedded_text
from memory.index.embedding import embed_passages
from memory.index.names import DOC_ID, in_either_form
from memory.index.recipe import configured, for_new_embeddings, recorded
from memory.index.tail import has_outgrown, keep_up
from memory.rls import tenant_transaction
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import RowSetChange

LAST_CHUNKS = (
    "SELECT DISTINCT ON (doc_id) doc_id, id FROM memory_chunks WHERE user_hash = %s AND doc_id = ANY (%b::text[])"
    " ORDER BY doc_id, chunk_index DESC"
)
TAKEN = "SELECT id FROM memory_chunks WHERE user_hash = %s AND id = ANY (%b::uuid[])"


@dataclass
class Restored:
    """What became of exported parts: documents begun, chunks stored, parts that were there already, and those whose ids
    other chunks have."""

    documents: int = 0
    chunks: int = 0
    skipped: int = 0
    conflicting: list[ExportedPart] = field(default_factory=list)


def restore_parts(*, user_id: str, parts: Sequence[ExportedPart], replace: bool = False) -> Restored:
    """Store parts of different documents, all that are wanted or none; with `replace` a document's first part replaces
    it. Embeds outside the transaction what has no embedding. Raises InvalidUserId, EmbeddingModelUnavailable."""
    nonce_budget.open_account()
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        likely = _wanted(parts, _last_chunks(cursor, user_hash, parts), replace)
    vectors = _embed(likely)
    with metrics.stage("index", "write"), tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        tenant = tenant_row.lock_or_create(cursor, user_id, user_hash, configured().as_text())
        wanted = _wanted(likely, _last_chunks(cursor, user_hash, likely), replace)
        change = RowSetChange(user_hash)
        if replace:
            _delete_replaced(cursor, user_hash, wanted, change)
        stored, conflicting = _without_taken(cursor, user_hash, wanted)
        chunks = [(chunk, vectors[chunk.id]) for part in stored for chunk in part.chunks]
        insert_embedded(cursor, user_hash, chunks, for_new_embeddings(recorded(tenant.recipe)), change)
        if not change.is_empty:
            cursor.execute(*tenant_row.change_rows(user_hash, tenant, change))
    metrics.CHUNKS_INDEXED.inc(len(chunks))
    if chunks and has_outgrown(tenant.chunk_count):
        keep_up(user_id=user_id, written=len(chunks))
    return Restored(
        documents=sum(part.after is None for part in stored),
        chunks=len(chunks),
        skipped=len(parts) - len(wanted),
        conflicting=conflicting,
    )


def _last_chunks(cursor: psycopg.Cursor[Any], user_hash: str, parts: Iterable[ExportedPart]) -> dict[str, UUID]:
    """The ids of the chunks with which the stored ones of these documents end."""
    names = in_either_form(user_hash, DOC_ID, [part.doc_id for part in parts])
    cursor.execute(LAST_CHUNKS, [user_hash, list(names)])
    return {names[stored]: chunk_id for stored, chunk_id in cursor.fetchall()}


def _wanted(parts: Sequence[ExportedPart], last: Mapping[str, UUID], replace: bool) -> list[ExportedPart]:
    return [part for part in parts if last.get(part.doc_id) == part.after or (replace and part.after is None)]


def _embed(parts: Sequence[ExportedPart]) -> dict[UUID | None, np.ndarray]:
    """The embeddings of all chunks by their ids: the given ones, and those that had to be made."""
    pairs = [pair for part in parts for pair in zip(part.chunks, part.embeddings, strict=True)]
    vectors = {chunk.id: embedding for chunk, embedding in pairs if embedding is not None}
    missing = [chunk for chunk, embedding in pairs if embedding is None]
    with metrics.stage("index", "embed"):
        made = embed_passages([embedded_text(chunk, configured().header) for chunk in missing])
    return vectors | {chunk.id: vector for chunk, vector in zip(missing, made, strict=True)}


def _delete_replaced(
    cursor: psycopg.Cursor[Any], user_hash: str, parts: Iterable[ExportedPart], change: RowSetChange
) -> None:
    names = in_either_form(user_hash, DOC_ID, [part.doc_id for part in parts if part.after is None])
    cursor.execute(rows.DELETE_DOCUMENTS, [user_hash, list(names)])
    change.removed(cursor.fetchall())


def _without_taken(
    cursor: psycopg.Cursor[Any], user_hash: str, parts: Sequence[ExportedPart]
) -> tuple[list[ExportedPart], list[ExportedPart]]:
    """The parts of whose ids no other chunk has one, and the others."""
    cursor.execute(TAKEN, [user_hash, [chunk.id for part in parts for chunk in part.chunks]])
    taken = {row_id for (row_id,) in cursor.fetchall()}
    free: list[ExportedPart] = []
    conflicting: list[ExportedPart] = []
    for part in parts:
        ids = {chunk.id for chunk in part.chunks}
        (conflicting if ids & taken else free).append(part)
        taken |= ids
    return free, conflicting
