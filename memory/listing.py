"""Reads stored chunks: one by its id, or a page of them, newest first."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F, Func, IntegerField

from memory.exceptions import ChunkNotFound, IntegrityFailure
from memory.models import MemoryChunk
from memory.rls import tenant_transaction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredChunk:
    """A chunk, opened."""

    id: UUID
    doc_id: str
    source: str
    chunk_index: int
    text: str = field(repr=False)
    metadata: Any = field(repr=False)
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Page:
    """Chunks by descending id (newest first), the id after which the next page starts, and how many did not open."""

    chunks: list[StoredChunk]
    next_after: UUID | None
    integrity_failures: int


def get_chunk(*, user_id: str, chunk_id: UUID) -> StoredChunk:
    """One chunk of this user. Raises ChunkNotFound, also for another user's; IntegrityFailure when it does not open."""
    with tenant_transaction(user_id):
        try:
            return _opened(MemoryChunk.objects.defer("emb_cipher").get(id=chunk_id))
        except MemoryChunk.DoesNotExist:
            raise ChunkNotFound(ChunkNotFound.__doc__) from None


def list_chunks(
    *, user_id: str, limit: int, source: str | None = None, doc_id: str | None = None, after: UUID | None = None
) -> Page:
    """Up to `limit` chunks of this user with an id below `after` (a keyset cursor: new chunks do not shift the pages).

    A page ends early, but not before its first chunk, when its seals would pass MEMORY_MAX_ANSWER_BYTES. Chunks beyond
    the page are neither fetched nor opened.
    """
    filters = {"source": source, "doc_id": doc_id, "id__lt": after}
    with tenant_transaction(user_id):
        queryset = MemoryChunk.objects.filter(**{name: value for name, value in filters.items() if value is not None})
        found = list(
            queryset.order_by("-id")
            .annotate(bytes=_bytes_of("text_cipher") + _bytes_of("meta_cipher"))
            .values_list("id", "bytes")[: limit + 1]
        )
        shown = list(_within_budget(found[:limit]))
        rows = list(MemoryChunk.objects.filter(id__in=shown).defer("emb_cipher").order_by("-id"))
        chunks = list(_openable(rows))
    return Page(
        chunks=chunks,
        next_after=shown[-1] if len(found) > len(shown) else None,
        integrity_failures=len(rows) - len(chunks),
    )


def _bytes_of(column: str) -> Func:
    return Func(F(column), function="octet_length", output_field=IntegerField())


def _within_budget(found: Iterable[tuple[UUID, int]]) -> Iterator[UUID]:
    total = 0
    for place, (chunk_id, size) in enumerate(found):
        total += size
        if place and total > settings.MEMORY_MAX_ANSWER_BYTES:
            return
        yield chunk_id


def _openable(rows: Iterable[MemoryChunk]) -> Iterator[StoredChunk]:
    for row in rows:
        try:
            yield _opened(row)
        except IntegrityFailure as failure:
            logger.error("integrity failure", extra={"chunk_id": str(row.id), "reason": type(failure).__name__})


def _opened(row: MemoryChunk) -> StoredChunk:
    return StoredChunk(
        id=row.id,
        doc_id=row.doc_id,
        source=row.source,
        chunk_index=row.chunk_index,
        text=row.text,
        metadata=row.metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
