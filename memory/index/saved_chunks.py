"""Keeps the index in step with chunks that are saved and deleted through the ORM.

What the API writes with a document is written with a saved chunk as well, by the same code and in the same transaction:
the vector, the keywords, the labels, and the count on the tenant's row. A chunk is a `memory.models.MemoryChunk`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

from memory import metrics
from memory.exceptions import TenantNotBound
from memory.index import rows
from memory.index.context import embedded_text
from memory.index.embedding import embed_passages
from memory.index.keywords import lexical_column
from memory.index.labels import labels
from memory.index.names import DOC_ID, stored_name
from memory.index.recipe import Recipe, configured, recorded
from memory.index.rows import CHUNKS, VECTORS, ChunkRow, array_text
from memory.index.stored_macs import authenticate, locked_unaltered
from memory.index.stored_rows import StoredRow
from memory.index.tables import insert
from memory.index.tail import INDEXED_PER_ROW, INDEXED_PER_WRITE, has_outgrown, index_rows_of_tail
from memory.index.uuid7 import uuid7
from memory.index.vectors import as_embeddings, searchable
from memory.rls import tenant_transaction, tenant_transaction_by_hash
from memory.sealing.row_macs import row_keys
from memory.security import UserHash, user_hashes
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.open_doors import bound_user_id, open_door
from memory.tenancy.row_set import COUNTED_COLUMNS, RowSetChange
from memory.tenancy.tenant_row import TenantRow

# What the index repeats of a chunk, so that a scan reads one table.
REPEATED = tuple(column for column in VECTORS.columns if column in CHUNKS.columns and column != "id")

LOCK_COUNTED = f"SELECT {COUNTED_COLUMNS} FROM memory_chunks WHERE user_hash = %s AND id = ANY (%b::uuid[]) FOR UPDATE"  # noqa: S608

# The vectors first: that waits for whoever is just making their postings, which are there to be deleted then.
_DROP = (
    "DELETE FROM memory_vectors WHERE user_hash = %s AND id = ANY (%b::uuid[])",
    "DELETE FROM memory_terms WHERE user_hash = %s AND id = ANY (%b::uuid[])",
)


def _fields(chunk: Any) -> Iterator[Any]:
    return (chunk._meta.get_field(column) for column in CHUNKS.columns)


@dataclass
class Writing:
    """A transaction in which chunks of one user are written, under the lock that every writer takes."""

    cursor: psycopg.Cursor[Any]
    user_hash: UserHash
    tenant: TenantRow | None
    rows: RowSetChange

    @property
    def recipe(self) -> Recipe:
        """By which recipe the tenant's rows are made."""
        return recorded(self.tenant.recipe if self.tenant else "")

    def give_places(self, chunks: Sequence[Any]) -> None:
        """Give chunks without a `chunk_index` the next ones of their documents, and every new one its id and times."""
        following: dict[str, int] = {}
        now = datetime.now(UTC)
        for chunk in chunks:
            if chunk.chunk_index is None:
                doc_id = stored_name(self.user_hash, DOC_ID, chunk.doc_id, self.recipe.names)
                place = following.get(doc_id)
                chunk.chunk_index = self._next_place(doc_id) if place is None else place
                following[doc_id] = chunk.chunk_index + 1
            for name, value in (("id", uuid7), ("created_at", lambda: now), ("updated_at", lambda: now)):
                if not isinstance(getattr(chunk, name), UUID | datetime):  # None, or the database's default
                    setattr(chunk, name, value())

    def _next_place(self, doc_id: str) -> int:
        self.cursor.execute(rows.NEXT_PLACE, [self.user_hash, doc_id])
        (place,) = self.cursor.fetchone() or (0,)
        return int(place)

    def rows_of(self, chunks: Sequence[Any]) -> Iterator[ChunkRow]:
        """Chunks as rows of both tables, searchable by the tenant's own index settings."""
        recipe = self.recipe
        originals = as_embeddings([chunk.embedding for chunk in chunks], ["embedding"] * len(chunks))
        turned, keys = searchable(originals, self.user_hash, recipe), row_keys(self.user_hash)
        for chunk, vector in zip(chunks, turned, strict=True):
            plain = chunk.plain()
            row = ChunkRow(
                **{field.attname: field.value_from_object(chunk) for field in _fields(chunk)},
                embedding=vector,
                lexical=lexical_column(plain, self.user_hash, recipe),
                labels=array_text(labels(self.user_hash, plain.metadata, recipe)),
                recipe_id=recipe.id,
                vector_mac=None,
            )
            row.authenticate(keys)
            yield row

    def insert(self, chunks: Sequence[Any]) -> None:
        """Store new chunks with their places in the index."""
        rows.insert_rows(self.cursor.connection, self.user_hash, self.rows_of(chunks), self.rows)
        self.added(len(chunks))

    def index_again(self, chunk: Any) -> None:
        """Put a stored chunk into the index anew, whatever was there of it."""
        for statement in _DROP:
            self.cursor.execute(statement, [self.user_hash, [chunk.id]])
        insert(self.cursor.connection, self.user_hash, self.rows_of([chunk]), VECTORS)
        if chunk.expires_at is not None:
            self.mark_expiring()

    def changing(self, ids: Sequence[UUID]) -> list[StoredRow]:
        """Lock stored rows that are about to be changed in place. Raises RowAltered for one that is not as written."""
        stored = locked_unaltered(self.cursor, self.user_hash, ids)
        for row in stored:
            self.rows.remove(row)
        return stored

    def changed(self, ids: Sequence[UUID]) -> None:
        """Give rows that were changed in place, or are new, the MACs of what they are now."""
        for row in authenticate(self.cursor, self.user_hash, ids):
            self.rows.add(row)

    def deleting(self, ids: Sequence[UUID]) -> None:
        """Take rows that are about to be deleted from the tenant's set of rows."""
        self.cursor.execute(LOCK_COUNTED, [self.user_hash, list(ids)])
        self.rows.removed(self.cursor.fetchall())

    def mark_expiring(self) -> None:
        """Note that stored chunks were given an `expires_at`."""
        self.cursor.execute(*tenant_row.mark_expiring(self.user_hash))

    def added(self, chunks: int) -> None:
        """Count new rows; those of a large tenant go on into the graph and the postings."""
        metrics.CHUNKS_INDEXED.inc(chunks)
        if chunks and self.tenant and has_outgrown(self.tenant.chunk_count):
            index_rows_of_tail(self.cursor, self.user_hash, INDEXED_PER_ROW * chunks + INDEXED_PER_WRITE)


@contextmanager
def writing(using: str | None = None, *, create: bool = True) -> Iterator[Writing]:
    """Enter the open door once more, or the bound user's, and lock the tenant, whose row follows what was written;
    `create`: make it at its first write.

    Raises OutsideTenantTransaction or TenantNotBound where nobody's rows can be written.
    """
    using = using or DEFAULT_DB_ALIAS
    door = open_door(connections[using])
    user_id = bound_user_id() if door is None else door.user_id or bound_user_id()
    entered = tenant_transaction_by_hash(door.user_hash, using=using) if door else tenant_transaction(using=using)
    with entered as user_hash, binary_cursor(using) as cursor:
        tenant = tenant_row.lock(cursor, user_hash)
        if tenant is None and create:
            # A door by hash may be another user's than the bound one.
            if user_id is None or user_hash not in user_hashes(user_id):
                raise TenantNotBound(TenantNotBound.__doc__)
            tenant = tenant_row.lock_or_create(cursor, user_id, user_hash, configured().as_text())
        write = Writing(cursor, user_hash, tenant, RowSetChange(user_hash))
        yield write
        if not write.rows.is_empty:
            cursor.execute(*tenant_row.change_rows(user_hash, tenant, write.rows))


def embed_missing(chunks: Sequence[Any]) -> None:
    """Embed what is new of chunks that were given no embedding. Before any lock: a model is slow."""
    missing = [chunk for chunk in chunks if chunk.lacks_embedding]
    if missing:
        header = configured().header
        texts = [embedded_text(chunk.plain(), header) for chunk in missing]
        for chunk, vector in zip(missing, embed_passages(texts), strict=True):
            chunk.embedding = vector
