"""Exports all of a user's memories as a stream of JSON lines, as of one moment and in constant memory.

The whole stream is read in one transaction that sees one snapshot, batch by batch along the documents' index: without a
cursor on the server, so nothing outlives the transaction. A client that reads slowly holds a connection and keeps
Postgres from cleaning up behind the snapshot. So exports are few at a time, and the server ends one that takes too
long. An export that broke off lacks its last line.
"""

import logging
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.conf import settings
from django.db import Error as DatabaseError

from memory.documents.exported import MOST_CHUNKS, ExportedPart, first_line, last_line, part_line
from memory.exceptions import ExportBrokenOff, IntegrityFailure, TooManyExports
from memory.index.recipe import Recipe, recorded
from memory.index.rows import CHUNKS, SEALS
from memory.index.stored_rows import OpenedRow, StoredRow, open_row
from memory.models import Tenant
from memory.rls import tenant_snapshot, tenant_transaction
from memory.tenancy.cursors import Send, sending
from memory.tenancy.planner_settings import planner_settings

logger = logging.getLogger(__name__)

ROWS_PER_BATCH = 200
BYTES_PER_BATCH = 1024 * 1024
"""Of seals, after the first row of a batch; as many go on a line."""

# Along the index of the documents' places. For a tenant without statistics the planner would read and sort all its rows
# for every batch.
ALONG_THE_DOCUMENTS = {"enable_bitmapscan": "off", "enable_seqscan": "off", "enable_sort": "off"}

_BYTES = " + ".join(f"coalesce(octet_length({seal}), 0)" for seal in SEALS if seal != "emb_cipher")
# In the order of StoredRow, without a version. The seal of an embedding is fetched where it is asked for.
_COLUMNS = ", ".join(
    "CASE WHEN %(embeddings)s THEN emb_cipher END" if column == "emb_cipher" else column for column in CHUNKS.columns
)
NEXT_ROWS = f"""
SELECT {_COLUMNS}, 0 FROM (
    SELECT c.*, row_number() OVER places AS place, sum({_BYTES}) OVER places AS so_far FROM (
        SELECT * FROM memory_chunks
        WHERE user_hash = %(user_hash)s AND (doc_id, chunk_index) > (%(doc_id)s, %(chunk_index)s)
            AND (expires_at IS NULL OR expires_at > now())
        ORDER BY doc_id, chunk_index LIMIT %(rows)s
    ) c WINDOW places AS (ORDER BY doc_id, chunk_index ROWS UNBOUNDED PRECEDING)
) c WHERE so_far <= %(bytes)s OR place = 1
ORDER BY doc_id, chunk_index
"""  # noqa: S608

_running = 0
_counting = threading.Lock()


class Export:
    """The lines of an export. Iterate over it in one thread, and close it; the snapshot is taken at the first line.

    Raises TooManyExports when this process makes MEMORY_EXPORT_CONCURRENT of them, and database errors before the first
    line; later ones become ExportBrokenOff.
    """

    def __init__(self, *, user_id: str, embeddings: bool = False) -> None:
        _begin()
        self._ended = weakref.finalize(self, _end)
        try:
            self._lines = _lines(user_id, _recipe_of(user_id), embeddings)
        except BaseException:
            self._ended()
            raise

    def __iter__(self) -> "Export":
        return self

    def __next__(self) -> bytes:
        return next(self._lines)

    def close(self) -> None:
        """End the transaction, wherever the export is."""
        try:
            self._lines.close()
        finally:
            self._ended()


@dataclass
class _Counts:
    documents: int = 0
    chunks: int = 0
    integrity_failures: int = 0


def _begin() -> None:
    global _running
    with _counting:
        if _running >= settings.MEMORY_EXPORT_CONCURRENT:
            raise TooManyExports(TooManyExports.__doc__)
        _running += 1


def _end() -> None:
    global _running
    with _counting:
        _running -= 1


def _recipe_of(user_id: str) -> Recipe:
    with tenant_transaction(user_id):
        return recorded(Tenant.objects.values_list("recipe", flat=True).first() or "")


def _lines(user_id: str, recipe: Recipe, embeddings: bool) -> Generator[bytes]:
    counts = _Counts()
    try:
        with tenant_snapshot(user_id, seconds=settings.MEMORY_EXPORT_SECONDS) as user_hash, sending() as send:
            yield first_line(recipe)
            opened = _opened(_rows(send, user_hash, embeddings), user_hash, counts)
            for part in parts(opened, counts):
                yield part_line(part)
            yield last_line(counts.documents, counts.chunks, counts.integrity_failures)
    except DatabaseError as error:
        logger.error("export broke off", extra={"reason": type(error.__cause__ or error).__name__})
        raise ExportBrokenOff(ExportBrokenOff.__doc__) from None


def _rows(send: Send, user_hash: str, embeddings: bool) -> Iterator[StoredRow]:
    """All rows in the order of the documents, a batch at a time."""
    last: dict[str, Any] = {"doc_id": "", "chunk_index": -1}
    with planner_settings(send, ALONG_THE_DOCUMENTS, restore=False):
        while True:
            parameters = {
                "user_hash": user_hash,
                "embeddings": embeddings,
                "rows": ROWS_PER_BATCH,
                "bytes": BYTES_PER_BATCH,
            }
            batch = [StoredRow(*row) for row in send(NEXT_ROWS, {**parameters, **last}).fetchall()]
            if not batch:
                return
            yield from batch
            last = {"doc_id": batch[-1].doc_id, "chunk_index": batch[-1].chunk_index}


def _opened(rows: Iterable[StoredRow], user_hash: str, counts: _Counts) -> Iterator[OpenedRow]:
    for row in rows:
        try:
            opened = open_row(row, user_hash)
        except IntegrityFailure as failure:
            counts.integrity_failures += 1
            logger.error("integrity failure", extra={"chunk_id": str(row.id), "reason": type(failure).__name__})
        else:
            yield opened


def parts(opened: Iterable[OpenedRow], counts: _Counts) -> Iterator[ExportedPart]:
    """Chunks as the lines they go on: a document to a line, or several to a long one."""
    for doc_id, of_document in groupby(opened, key=lambda row: row.chunk.doc_id):
        counts.documents += 1
        after = None
        for portion in _portions(of_document):
            counts.chunks += len(portion)
            chunks = tuple(row.chunk for row in portion)
            yield ExportedPart(doc_id, chunks, tuple(row.original for row in portion), after)
            after = chunks[-1].id


def _portions(opened: Iterable[OpenedRow]) -> Iterator[list[OpenedRow]]:
    portion: list[OpenedRow] = []
    size = 0
    for row in opened:
        characters = len(row.chunk.text)
        if portion and (len(portion) == MOST_CHUNKS or size + characters > BYTES_PER_BATCH):
            yield portion
            portion, size = [], 0
        portion.append(row)
        size += characters
    if portion:
        yield portion
