"""Storing: documents, each replaced as a whole, and single chunks, each appended to its document."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from asgiref.sync import sync_to_async
from django.conf import settings
from psycopg.pq import TransactionStatus

from keys import nonce_budget
from memory import metrics
from memory.documents.document import Document, refuse_invalid
from memory.index import rows
from memory.index.context import embedded_text
from memory.index.embedding import embed_passages
from memory.index.names import DOC_ID, in_either_form, stored_name, stored_names
from memory.index.recipe import Recipe, configured, for_new_embeddings, recorded
from memory.index.rows import ChunkRow, PlainChunk, build_rows, refuse_invalid_chunk
from memory.index.tail import has_outgrown, keep_up
from memory.index.vectors import as_embedding, as_embeddings
from memory.rls import set_rls_context, tenant_transaction
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor, register_vectors_async
from memory.tenancy.row_set import CountedRow, RowSetChange

# Chunks that are embedded between two calls of `progress`: about a second, on two cores.
PORTION = 32

Progress = Callable[[int, int], object]
Within = Callable[[psycopg.Cursor[Any], UserHash, "list[IndexedDocument]"], object]
# Chunks that a document had, by doc_id: how many, and since when.
Replaced = dict[str, tuple[int, datetime]]


@dataclass(frozen=True)
class IndexedDocument:
    """A stored document: the ids of its chunks in order, and how many old chunks they replaced."""

    doc_id: str
    chunk_ids: list[UUID]
    replaced: int


@dataclass(frozen=True)
class _Embedded:
    """All chunks of a call, flat, beside their vectors of shape (n, d)."""

    places: list[tuple[Document, int]]
    vectors: np.ndarray


def index_documents(
    *,
    user_id: str,
    documents: Sequence[Document],
    progress: Progress = lambda embedded, chunks: None,
    within: Within = lambda cursor, user_hash, indexed: None,
) -> list[IndexedDocument]:
    """Store documents for one user, all of them or none; a doc_id that exists is replaced whole.

    Embeds outside the transaction, in portions: `progress` is told how many of how many chunks are embedded, and stops
    the whole by raising. `within` is called in the transaction, when everything is written: what it does and the
    documents are stored together or not at all. Raises InvalidDocument naming the field, InvalidUserId,
    EmbeddingModelUnavailable.
    """
    refuse_invalid(documents)
    nonce_budget.open_account()
    with metrics.stage("index", "embed"):
        embedded = _embed(documents, progress)
    with metrics.stage("index", "write"), tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        tenant = tenant_row.lock_or_create(cursor, user_id, user_hash, configured().as_text())
        change = RowSetChange(user_hash)
        recipe = for_new_embeddings(recorded(tenant.recipe))
        replaced = _delete_old(cursor, user_hash, documents, recipe, change)
        sealed = _seal(user_hash, embedded, replaced, recipe)
        ids = rows.insert_rows(cursor.connection, user_hash, sealed, change)
        cursor.execute(*tenant_row.change_rows(user_hash, tenant, change))
        indexed = _indexed(documents, ids, replaced)
        within(cursor, user_hash, indexed)
    metrics.CHUNKS_INDEXED.inc(len(ids))
    if has_outgrown(tenant.chunk_count):
        with metrics.stage("index", "grow"):
            keep_up(user_id=user_id, written=len(ids))
    return indexed


async def index_memory_chunk(
    conn: psycopg.AsyncConnection[Any],
    user_id: str,
    doc_id: str,
    source: str,
    text: str,
    embedding: Sequence[float] | np.ndarray,
    metadata: Mapping[str, Any],
) -> UUID:
    """Append a chunk to a document over an async connection as memory_app: it takes the doc_id's next chunk_index.

    In a transaction of the caller's, a later write moves the chunk of an outgrown tenant into the indexes. Returns the
    chunk's id. Raises InvalidDocument naming the field, InvalidUserId.
    """
    chunk = PlainChunk(doc_id=doc_id, source=source, chunk_index=0, text=text, metadata=metadata)
    refuse_invalid_chunk(chunk)
    await nonce_budget.open_account_async(conn)
    original = as_embedding(embedding)
    async with set_rls_context(conn, user_id) as user_hash:
        await register_vectors_async(conn)
        async with psycopg.AsyncCursor(conn) as cursor:
            cursor.format = psycopg.pq.Format.BINARY
            tenant = await tenant_row.lock_or_create_async(cursor, user_id, user_hash, configured().as_text())
            recipe = for_new_embeddings(recorded(tenant.recipe))
            stored = stored_name(user_hash, DOC_ID, doc_id, recipe.names)
            await cursor.execute(rows.NEXT_PLACE, [user_hash, stored])
            (place,) = await cursor.fetchone() or (0,)
            placed = [replace(chunk, chunk_index=place)]
            sealed = list(build_rows(user_hash, placed, original[np.newaxis], recipe))
            change = RowSetChange(user_hash)
            (chunk_id,) = await rows.insert_rows_async(conn, user_hash, sealed, change)
            await cursor.execute(*tenant_row.change_rows(user_hash, tenant, change))
    metrics.CHUNKS_INDEXED.inc()
    if has_outgrown(tenant.chunk_count) and conn.info.transaction_status == TransactionStatus.IDLE:
        await sync_to_async(keep_up)(user_id=user_id, written=1)
    return chunk_id


def existing_doc_ids(*, user_id: str, doc_ids: Sequence[str]) -> set[str]:
    """Which of these documents the user already has; one that has expired is there no more."""
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT doc_id FROM memory_chunks WHERE user_hash = %s AND doc_id = ANY (%b::text[])"
            " AND (expires_at IS NULL OR expires_at > now())",
            [user_hash, list(names := in_either_form(user_hash, DOC_ID, doc_ids))],
        )
        return {names[stored] for (stored,) in cursor.fetchall()}


def _indexed(documents: Sequence[Document], ids: Iterable[UUID], replaced: Replaced) -> list[IndexedDocument]:
    remaining = iter(ids)
    return [
        IndexedDocument(
            doc_id=document.doc_id,
            chunk_ids=list(islice(remaining, len(document.chunks))),
            replaced=replaced.get(document.doc_id, (0, None))[0],
        )
        for document in documents
    ]


def _embed(documents: Sequence[Document], progress: Progress) -> _Embedded:
    places = [(document, index) for document in documents for index in range(len(document.chunks))]
    chunks = [document.chunks[index] for document, index in places]
    vectors = np.empty((len(chunks), settings.MEMORY_EMBEDDING_DIM), dtype=np.float32)
    given = {position: chunk.embedding for position, chunk in enumerate(chunks) if chunk.embedding is not None}
    if given:
        vectors[list(given)] = as_embeddings(list(given.values()), _fields(documents))
    missing = [position for position, chunk in enumerate(chunks) if chunk.embedding is None]
    header = configured().header
    texts = {position: embedded_text(places[position][0].plain(places[position][1]), header) for position in missing}
    # Of similar length together, the longest first: an estimate of the time that is left is never too short.
    missing.sort(key=lambda position: -len(texts[position]))
    done = len(chunks) - len(missing)
    progress(done, len(chunks))
    for first in range(0, len(missing), PORTION):
        portion = missing[first : first + PORTION]
        vectors[portion] = embed_passages([texts[position] for position in portion])
        progress(done := done + len(portion), len(chunks))
    return _Embedded(places=places, vectors=vectors)


def _fields(documents: Sequence[Document]) -> list[str]:
    """The names of the embeddings that were given, in order."""
    return [
        f"documents[{number}].chunks[{index}].embedding"
        for number, document in enumerate(documents)
        for index, chunk in enumerate(document.chunks)
        if chunk.embedding is not None
    ]


def _seal(user_hash: str, embedded: _Embedded, replaced: Replaced, recipe: Recipe) -> Iterator[ChunkRow]:
    # A replaced document keeps the time it was first stored.
    plain = [
        document.plain(index, created_at=replaced.get(document.doc_id, (0, None))[1])
        for document, index in embedded.places
    ]
    return build_rows(user_hash, plain, embedded.vectors, recipe)


def _delete_old(
    cursor: psycopg.Cursor[Any], user_hash: str, documents: Sequence[Document], recipe: Recipe, change: RowSetChange
) -> Replaced:
    names = stored_names(user_hash, DOC_ID, [document.doc_id for document in documents], recipe.names)
    cursor.execute(rows.DELETE_DOCUMENTS, [user_hash, list(names)])
    return _replaced(change.removed(cursor.fetchall()), names)


def _replaced(deleted: Iterable[CountedRow], names: Mapping[str, str]) -> Replaced:
    """Deleted chunks by document: how many there were, and since when. `names`: the doc_ids by their stored form."""
    found: Replaced = {}
    for row in deleted:
        doc_id = names[row.doc_id]
        count, first = found.get(doc_id, (0, row.created_at))
        found[doc_id] = count + 1, min(first, row.created_at)
    return found
