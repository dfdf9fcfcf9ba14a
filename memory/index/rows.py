"""One shared core for every writer: a checked, sealed row, and the statements that store it.

Both tables are filled by one statement, so that a chunk and its vector share a database-made uuidv7. Bulk writes are
INSERT … SELECT FROM unnest(…): Postgres refuses COPY FROM on a table with row-level security.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from pgvector import SparseVector

from keys.keyring import get_keyring
from memory import metrics
from memory.index.keywords import lexical_column
from memory.index.labels import labels as labels_of
from memory.index.recipe import Recipe, configured
from memory.index.vectors import searchable as searchable_form
from memory.sealing.codecs import JSONCodec, SealedBytes, TextCodec, VectorCodec
from memory.security import aad_for, seal

ROWS_PER_STATEMENT = 500
SEALS_PER_ROW = 3

_text, _json, _vector = TextCodec(), JSONCodec(), VectorCodec()

DELETE_DOCUMENTS = (
    "WITH gone AS (DELETE FROM memory_chunks WHERE user_hash = %s AND doc_id = ANY (%b::text[])"
    " RETURNING doc_id, created_at)"
    " SELECT doc_id, count(*), min(created_at) FROM gone GROUP BY doc_id"
)

INSERT_CHUNKS = """
WITH input AS (
    SELECT coalesce(row.known_id, uuidv7()) AS id, row.*
    FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::int4[], %b::bytea[], %b::bytea[], %b::bytea[],
                %b::timestamptz[], %b::timestamptz[], %b::vector[], %b::sparsevec[], %b::text[])
        WITH ORDINALITY AS row (known_id, doc_id, source, chunk_index, text_cipher, meta_cipher, emb_cipher,
                                created_at, updated_at, embedding, lexical, labels, position)
), chunks AS (
    INSERT INTO memory_chunks
        (user_hash, id, doc_id, source, chunk_index, text_cipher, meta_cipher, emb_cipher, enc_key_id, created_at,
         updated_at)
    SELECT %s, id, doc_id, source, chunk_index, text_cipher, meta_cipher, emb_cipher, %s,
           coalesce(created_at, now()), coalesce(updated_at, now())
    FROM input
), vectors AS (
    INSERT INTO memory_vectors
        (user_hash, id, embedding, lexical, doc_id, source, chunk_index, created_at, labels)
    SELECT %s, id, embedding, lexical, doc_id, source, chunk_index, coalesce(created_at, now()), labels::int8[]
    FROM input
)
SELECT id FROM input ORDER BY position
"""


@dataclass(frozen=True)
class ChunkRow:
    """One row of memory_chunks and one of memory_vectors, sealed and ready to be written.

    Without id and times it is a new row, which the database gives them.
    """

    doc_id: str
    source: str
    chunk_index: int
    text_cipher: SealedBytes
    meta_cipher: SealedBytes
    emb_cipher: SealedBytes
    created_at: datetime | None
    embedding: np.ndarray
    lexical: SparseVector | None
    labels: Sequence[int] = ()
    id: UUID | None = None
    updated_at: datetime | None = None


def seal_row(
    *,
    user_hash: str,
    doc_id: str,
    source: str,
    chunk_index: int,
    text: str,
    metadata: Mapping[str, Any],
    original: np.ndarray,
    searchable: np.ndarray,
    lexical: SparseVector | None = None,
    labels: Sequence[int] = (),
    id: UUID | None = None,
    created_at: datetime | None = None,
    updated_at: datetime | None = None,
) -> ChunkRow:
    """Seal one chunk: SEALS_PER_ROW seals, which the caller counts.

    `original` is the embedding as given, `searchable` its form in the index, both float32 (d,).
    """
    aad = aad_for(user_hash)
    return ChunkRow(
        doc_id=doc_id,
        source=source,
        chunk_index=chunk_index,
        text_cipher=SealedBytes(seal(_text.encode(text), aad)),
        meta_cipher=SealedBytes(seal(_json.encode(metadata), aad)),
        emb_cipher=SealedBytes(seal(_vector.encode(original), aad)),
        id=id,
        created_at=created_at,
        updated_at=updated_at,
        embedding=searchable,
        lexical=lexical,
        labels=labels,
    )


def insert_parameters(user_hash: str, rows: Sequence[ChunkRow]) -> list[Any]:
    """The parameters of INSERT_CHUNKS: twelve arrays of equal length, then what all rows share."""
    return [
        [row.id for row in rows],
        [row.doc_id for row in rows],
        [row.source for row in rows],
        [row.chunk_index for row in rows],
        [bytes(row.text_cipher) for row in rows],
        [bytes(row.meta_cipher) for row in rows],
        [bytes(row.emb_cipher) for row in rows],
        [row.created_at for row in rows],
        [row.updated_at for row in rows],
        [row.embedding for row in rows],
        [row.lexical for row in rows],
        as_array_texts(rows),
        user_hash,
        sealing_key_id(),
        user_hash,
    ]


def as_array_texts(rows: Sequence[ChunkRow]) -> list[str]:
    """The rows' labels. An array of arrays would have to be rectangular, so each travels as its own text."""
    return ["{" + ",".join(map(str, row.labels)) + "}" for row in rows]


def sealing_key_id() -> str:
    """What new rows name as their key."""
    return get_keyring().sealing.key_id


@dataclass(frozen=True)
class PlainChunk:
    """What a row says, before it is sealed. A new row has no id and no times yet."""

    doc_id: str
    source: str
    chunk_index: int
    text: str = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    id: UUID | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


def build_rows(
    user_hash: str, chunks: Sequence[PlainChunk], originals: np.ndarray, recipe: Recipe | None = None
) -> Iterator[ChunkRow]:
    """Rows of one user, in the order of `chunks`. `originals`: their embeddings as given, float32 (n, d).

    `recipe` is the one that the tenant's row records; without it the configured one, which a new tenant gets.
    """
    recipe = recipe or configured()
    metrics.SEALS.inc(SEALS_PER_ROW * len(chunks))
    for chunk, original, turned in zip(chunks, originals, searchable_form(originals, user_hash, recipe), strict=True):
        yield seal_row(
            user_hash=user_hash,
            doc_id=chunk.doc_id,
            source=chunk.source,
            chunk_index=chunk.chunk_index,
            text=chunk.text,
            metadata=chunk.metadata,
            original=original,
            searchable=turned,
            lexical=lexical_column(chunk.text, user_hash, recipe),
            labels=labels_of(user_hash, chunk.metadata, recipe),
            id=chunk.id,
            created_at=chunk.created_at,
            updated_at=chunk.updated_at,
        )
