"""The shape of a stored row: `ChunkRow` declares every column once, and every statement is made from it.

A row is written to its two tables by two statements of one pipeline; its id and its times are made here, so nothing is
waited for in between.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from pgvector import SparseVector

from keys.keyring import get_keyring
from memory import metrics
from memory.exceptions import InvalidDocument
from memory.index.context import (
    NO_CONTEXT,
    context_of,
    refuse_invalid_name,
    refuse_invalid_time,
)
from memory.index.keywords import lexical_column
from memory.index.labels import labels as labels_of
from memory.index.names import DOC_ID, SOURCE, stored_name, with_names
from memory.index.recipe import Recipe, configured
from memory.index.tables import Table, insert
from memory.index.uuid7 import uuid7s
from memory.index.vectors import searchable as searchable_form
from memory.sealing.codecs import (
    ContextCodec,
    JSONCodec,
    SealedBytes,
    TextCodec,
    VectorCodec,
    has_control_characters,
)
from memory.sealing.row_macs import RowKeys, new_version, place_of, row_keys
from memory.security import aad_for, seal
from memory.tenancy import tenant_row
from memory.tenancy.row_set import COUNTED_COLUMNS, RowSetChange

SEALS_PER_ROW = 3  # and one more where there is a context
NO_NUMBERS = "{}"

_text, _json, _context, _vector = TextCodec(), JSONCodec(), ContextCodec(), VectorCodec()

# Here and elsewhere a `doc_id` in SQL is a name in the form in which the tenant's are stored (memory.index.names).
DELETE_DOCUMENTS = (
    "DELETE FROM memory_chunks WHERE user_hash = %s AND doc_id = ANY (%b::text[])"  # noqa: S608
    f" RETURNING {COUNTED_COLUMNS}"
)
NEXT_PLACE = "SELECT coalesce(max(chunk_index) + 1, 0) FROM memory_chunks WHERE user_hash = %s AND doc_id = %s"


def _column(type: str, *tables: str) -> Any:
    return field(metadata={"type": type, "tables": tables})


_C, _V = "memory_chunks", "memory_vectors"


@dataclass(kw_only=True, slots=True)  # frozen, it takes four times as long to make
class ChunkRow:
    """One row of memory_chunks and one of memory_vectors, sealed and ready to be written, but for the user hash."""

    id: UUID = _column("uuid", _C, _V)
    doc_id: str = _column("text", _C, _V)
    source: str = _column("text", _C, _V)
    chunk_index: int = _column("int4", _C, _V)
    text_cipher: SealedBytes = _column("bytea", _C)
    meta_cipher: SealedBytes = _column("bytea", _C)
    emb_cipher: SealedBytes = _column("bytea", _C)
    context_cipher: SealedBytes | None = _column("bytea", _C)
    enc_key_id: str = _column("text", _C)
    chunk_mac: bytes | None = _column("bytea", _C)
    created_at: datetime = _column("timestamptz", _C, _V)
    updated_at: datetime = _column("timestamptz", _C)
    occurred_at: datetime | None = _column("timestamptz", _C, _V)
    expires_at: datetime | None = _column("timestamptz", _C, _V)
    embedding: np.ndarray = _column("vector", _V)
    lexical: SparseVector | None = _column("sparsevec", _V)
    labels: str = _column("int8[]", _V)
    recipe_id: int = _column("int8", _V)
    vector_mac: bytes | None = _column("bytea", _V)
    element: int = field(default=0, metadata={"tables": ()})
    """What it counts for in the tenant's set of rows: no column."""

    def authenticate(self, keys: RowKeys) -> None:
        """Give the row its MACs, and a new version, when all else is there."""
        place = place_of(self)
        self.chunk_mac = keys.chunk_mac(self, sha256(self.emb_cipher).digest(), new_version(), place)
        self.vector_mac = keys.vector_mac(self, self.embedding, self.lexical, self.labels, self.recipe_id, place)
        self.element = keys.element(self, self.chunk_mac, place)


def _table(name: str) -> Table:
    return Table(
        name, {each.name: each.metadata["type"] for each in fields(ChunkRow) if name in each.metadata["tables"]}
    )


CHUNKS, VECTORS = _table(_C), _table(_V)
SEALS = ("text_cipher", "meta_cipher", "emb_cipher", "context_cipher")
SEALED_COLUMNS = (*SEALS, "enc_key_id", "chunk_mac")
TABLES = (CHUNKS, VECTORS)


@dataclass(frozen=True)
class PlainChunk:
    """What a row says, before it is sealed. A new row has no id, and nobody has said yet when it was made.

    `occurred_at` is the time that it is about, in the zone in which the client gave it; from `expires_at` on it is as
    good as deleted.
    """

    doc_id: str
    source: str
    chunk_index: int
    text: str = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    title: str = field(default="", repr=False)
    author: str = field(default="", repr=False)
    occurred_at: datetime | None = None
    expires_at: datetime | None = None
    id: UUID | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


def refuse_invalid_chunk(chunk: PlainChunk) -> None:
    """Raise InvalidDocument, naming the field, for a chunk that cannot be stored."""
    for name, value in (("doc_id", chunk.doc_id), ("text", chunk.text.strip())):
        if not value:
            raise InvalidDocument(name, "This must not be empty.")
    for name, value in (("doc_id", chunk.doc_id), ("source", chunk.source)):
        if has_control_characters(value):
            raise InvalidDocument(name, "This must not contain control characters.")
    for name in ("title", "author"):
        refuse_invalid_name(getattr(chunk, name), name)
    for name in ("occurred_at", "expires_at"):
        refuse_invalid_time(getattr(chunk, name), name)
    try:
        _json.encode(chunk.metadata)
    except (TypeError, ValueError, RecursionError):
        raise InvalidDocument("metadata", "This must be a JSON object.") from None


def build_rows(
    user_hash: str, chunks: Sequence[PlainChunk], originals: np.ndarray, recipe: Recipe | None = None
) -> Iterator[ChunkRow]:
    """Rows of one user, in the order of `chunks`. `originals`: their embeddings as given, float32 (n, d).

    `recipe` is the one that the tenant's row records; without it the configured one, which a new tenant gets.
    """
    recipe = recipe or configured()
    aad, key_id, now = aad_for(user_hash), get_keyring().sealing.key_id, datetime.now(UTC)
    recipe_id, names, keys = recipe.id, recipe.names, row_keys(user_hash)
    contexts = [with_names(context_of(chunk), chunk.doc_id, chunk.source, names) for chunk in chunks]
    metrics.SEALS.inc(SEALS_PER_ROW * len(chunks) + len(chunks) - contexts.count(NO_CONTEXT))
    new_ids, turned = uuid7s(len(chunks)), searchable_form(originals, user_hash, recipe)
    for chunk, context, new_id, original, vector in zip(chunks, contexts, new_ids, originals, turned, strict=True):
        row = ChunkRow(
            id=chunk.id or new_id,
            doc_id=stored_name(user_hash, DOC_ID, chunk.doc_id, names),
            source=stored_name(user_hash, SOURCE, chunk.source, names),
            chunk_index=chunk.chunk_index,
            text_cipher=SealedBytes(seal(_text.encode(chunk.text), aad)),
            meta_cipher=SealedBytes(seal(_json.encode(chunk.metadata), aad)),
            emb_cipher=SealedBytes(seal(_vector.encode(original), aad)),
            context_cipher=SealedBytes(seal(_context.encode(context), aad)) if context != NO_CONTEXT else None,
            enc_key_id=key_id,
            chunk_mac=None,
            created_at=chunk.created_at or now,
            updated_at=chunk.updated_at or now,
            occurred_at=chunk.occurred_at,
            expires_at=chunk.expires_at,
            embedding=vector,
            lexical=lexical_column(chunk, user_hash, recipe),
            labels=array_text(labels_of(user_hash, chunk.metadata, recipe)),
            recipe_id=recipe_id,
            vector_mac=None,
        )
        row.authenticate(keys)
        yield row


def array_text(numbers: Sequence[int]) -> str:
    """Integers as the text of a Postgres array."""
    return f"{{{','.join(map(str, numbers))}}}" if numbers else NO_NUMBERS


def insert_rows(
    connection: psycopg.Connection[Any],
    user_hash: str,
    rows: Iterable[ChunkRow],
    change: RowSetChange,
) -> list[UUID]:
    """Insert rows inside the open door of their user, and add them to `change`; returns their ids in order. If any of
    them expires, the tenant's row says so."""
    ids: list[UUID] = []
    expiring = False

    def noted() -> Iterator[ChunkRow]:
        nonlocal expiring
        for row in rows:
            ids.append(row.id)
            change.add_made(row.element)
            expiring = expiring or row.expires_at is not None
            yield row

    insert(connection, user_hash, noted(), *TABLES)
    if expiring:
        psycopg.Cursor(connection).execute(*tenant_row.mark_expiring(user_hash))
    return ids


async def insert_rows_async(
    connection: psycopg.AsyncConnection[Any], user_hash: str, rows: Sequence[ChunkRow], change: RowSetChange
) -> list[UUID]:
    """As `insert_rows`, over an async connection and in one statement a table."""
    cursor = psycopg.AsyncRawCursor(connection)
    async with connection.pipeline():
        for table in TABLES:
            await cursor.execute(*table.inserting(user_hash, rows))
    if any(row.expires_at is not None for row in rows):
        await psycopg.AsyncCursor(connection).execute(*tenant_row.mark_expiring(user_hash))
    for row in rows:
        change.add_made(row.element)
    return [row.id for row in rows]
