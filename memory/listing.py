"""Reads stored chunks: by their ids, a page of them, or the pages of a document. None that has expired."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from django.db.models import F, Func, IntegerField, QuerySet, Value
from django.db.models.functions import Coalesce

from memory.exceptions import ChunkNotFound, IntegrityFailure
from memory.index.rows import PlainChunk
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from memory.sealing.answer_bytes import rows_within_budget
from memory.search.conditions import Group
from memory.search.filters import Scope
from memory.search.scoped_rows import count_in_scope, rows_in_scope
from memory.tenancy.cursors import sending

logger = logging.getLogger(__name__)

Place = TypeVar("Place")


class Sort(StrEnum):
    """The orders of a list: newest first, or by the time that chunks are about, the earliest or the latest first."""

    CREATED = "-created_at"
    OCCURRED = "occurred_at"
    OCCURRED_LATEST = "-occurred_at"


class TimePlace(NamedTuple):
    """Where a page ended that is ordered by time."""

    time: datetime
    id: UUID


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
    title: str = field(default="", repr=False)
    author: str = field(default="", repr=False)
    occurred_at: datetime | None = None
    expires_at: datetime | None = None

    @classmethod
    def of(cls, chunk: PlainChunk) -> "StoredChunk":
        """From an opened chunk that is stored."""
        return cls(**{each.name: getattr(chunk, each.name) for each in fields(cls)})


@dataclass(frozen=True)
class Page(Generic[Place]):
    """Chunks in the order of a page, the place after which the next page starts, and how many did not open.

    A place is what the pages are ordered by: an id, or a chunk's index in its document.
    """

    chunks: list[StoredChunk]
    next_after: Place | None
    integrity_failures: int


@dataclass(frozen=True)
class Found:
    """Chunks that were asked for by their ids, in that order.

    `missing`: ids of no chunk of this user. `left_out`: ids for whose chunks the answer has no room.
    """

    chunks: list[StoredChunk]
    missing: list[UUID]
    left_out: list[UUID]
    integrity_failures: int


def get_chunk(*, user_id: str, chunk_id: UUID) -> StoredChunk:
    """One chunk of this user. Raises ChunkNotFound, also for another user's; IntegrityFailure when it does not open."""
    with tenant_transaction(user_id):
        try:
            return StoredChunk.of(_readable().get(id=chunk_id).plain())
        except MemoryChunk.DoesNotExist:
            raise ChunkNotFound(ChunkNotFound.__doc__) from None


def get_chunks(*, user_id: str, chunk_ids: Sequence[UUID]) -> Found:
    """Chunks of this user by their ids, as many as MEMORY_MAX_ANSWER_BYTES has room for, the first always."""
    wanted = list(dict.fromkeys(chunk_ids))
    with tenant_transaction(user_id):
        sizes = dict(_with_bytes(_readable().filter(id__in=wanted)).values_list("id", "bytes"))
        there = [chunk_id for chunk_id in wanted if chunk_id in sizes]
        shown = there[: rows_within_budget([sizes[chunk_id] for chunk_id in there])]
        opened, failures = _read(shown)
    return Found(
        chunks=sorted(opened, key=lambda chunk: shown.index(chunk.id)),
        missing=[chunk_id for chunk_id in wanted if chunk_id not in sizes],
        left_out=there[len(shown) :],
        integrity_failures=failures,
    )


def list_chunks(
    *,
    user_id: str,
    limit: int,
    source: str | None = None,
    doc_id: str | None = None,
    occurred_after: datetime | None = None,
    occurred_before: datetime | None = None,
    filter: Group | None = None,
    sort: Sort = Sort.CREATED,
    after: UUID | TimePlace | None = None,
    skip: int = 0,
) -> Page[Any]:
    """Up to `limit` chunks of this user behind the place `after` (a keyset cursor: new chunks do not shift the pages),
    or those after the first `skip`.

    `occurred_after` is inclusive, `occurred_before` exclusive; a chunk without a time of its own occurred when it was
    created. A page ends early, but not before its first chunk, when its seals would pass MEMORY_MAX_ANSWER_BYTES.
    Chunks beyond the page are neither fetched nor opened. Raises ValueError for a place of another order, InvalidFilter
    for what the user's rows do not tell.
    """
    if after is not None and isinstance(after, UUID) != (sort is Sort.CREATED):
        raise ValueError("The place is one of another order.")
    scope = Scope(
        source=source, doc_id=doc_id, occurred_after=occurred_after, occurred_before=occurred_before, filter=filter
    )
    place: dict[str, Any] = (
        {"after_time": after.time, "after_id": after.id} if isinstance(after, TimePlace) else {"after_id": after}
    )
    with tenant_transaction(user_id) as user_hash:
        with sending() as send:
            found = rows_in_scope(send, user_hash, scope, order=sort.value, limit=limit + 1, skip=skip, **place)
        shown = found[: rows_within_budget([row.bytes for row in found[:limit]])]
        places = {row.id: number for number, row in enumerate(shown)}
        chunks, failures = _read(list(places))
    last = shown[-1] if len(found) > len(shown) else None
    return Page(
        chunks=sorted(chunks, key=lambda chunk: places[chunk.id]),
        next_after=last and (last.id if sort is Sort.CREATED else TimePlace(last.happened, last.id)),
        integrity_failures=failures,
    )


def count_chunks(*, user_id: str, filter: Group | None = None) -> int:
    """How many chunks of this user pass a filter, or all; none that has expired. Raises InvalidFilter."""
    with tenant_transaction(user_id) as user_hash, sending() as send:
        return count_in_scope(send, user_hash, Scope(filter=filter))


def read_document(*, user_id: str, doc_id: str, limit: int, after: int | None = None) -> Page[int]:
    """Up to `limit` chunks of a document behind the index `after`, in the document's order; pages as `list_chunks`.

    Raises ChunkNotFound where there is none.
    """
    behind = {} if after is None else {"chunk_index__gt": after}
    with tenant_transaction(user_id):
        page: Page[int] = _page("chunk_index", limit, doc_id=doc_id, **behind)
    if not page.chunks and not page.integrity_failures:
        raise ChunkNotFound(ChunkNotFound.__doc__)
    return page


def _page(order: str, limit: int, **filters: Any) -> Page[Any]:
    """A page of the chunks that pass the filters, in the order of one column, within the open door."""
    queryset = _with_bytes(_readable().filter(**filters).order_by(order))
    found = list(queryset.values_list("id", order.removeprefix("-"), "bytes")[: limit + 1])
    shown = found[: rows_within_budget([size for _, _, size in found[:limit]])]
    chunks, failures = _read([chunk_id for chunk_id, _, _ in shown], order)
    return Page(
        chunks=chunks,
        next_after=shown[-1][1] if len(found) > len(shown) else None,
        integrity_failures=failures,
    )


def _readable() -> QuerySet[MemoryChunk]:
    return MemoryChunk.objects.unexpired().defer("emb_cipher")


def _with_bytes(queryset: QuerySet[MemoryChunk]) -> QuerySet[Any]:
    return queryset.annotate(bytes=sum(map(_bytes_of, ("text_cipher", "meta_cipher", "context_cipher")), Value(0)))


def _bytes_of(column: str) -> Coalesce:
    return Coalesce(Func(F(column), function="octet_length", output_field=IntegerField()), 0)


def _read(chunk_ids: Sequence[UUID], order: str = "id") -> tuple[list[StoredChunk], int]:
    """These chunks, those that open, and how many do not."""
    rows = list(_readable().filter(id__in=chunk_ids).order_by(order))
    chunks = list(_openable(rows))
    return chunks, len(rows) - len(chunks)


def _openable(rows: Iterable[MemoryChunk]) -> Iterator[StoredChunk]:
    for row in rows:
        try:
            yield StoredChunk.of(row.plain())
        except IntegrityFailure as failure:
            logger.error("integrity failure", extra={"chunk_id": str(row.id), "reason": type(failure).__name__})
