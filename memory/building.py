"""From plain chunks to rows: sealed for one user, turned and hashed for that user's index.

Indexing and the rotation of the HMAC key both come through here, so a moved row is found as a new one would be.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from memory import metrics
from memory.lexical_column import lexical_column
from memory.recipe import Recipe, configured
from memory.rows import SEALS_PER_ROW, ChunkRow, seal_row
from memory.scope import labels
from memory.vectors import searchable


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
    for chunk, original, turned in zip(chunks, originals, searchable(originals, user_hash, recipe), strict=True):
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
            labels=labels(user_hash, chunk.metadata, recipe),
            id=chunk.id,
            created_at=chunk.created_at,
            updated_at=chunk.updated_at,
        )
