"""Every cell of a user's rows, copied from and swapped with that of every other row, by somebody who may write them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import permutations
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction

from memory.documents.document import Chunk, Document
from memory.index.rows import CHUNKS
from memory.indexing import index_documents
from memory.listing import list_chunks
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from tests.attacks.tally import tried
from tests.factories import ALICE, vector_of

pytestmark = pytest.mark.django_db

# A hint, whose truth is told by opening; the key of the row is copied in a test of its own.
NOT_COVERED = ("id", "enc_key_id")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def rows() -> list[UUID]:
    """Rows of which no two have a cell in common, but for the places of documents."""
    documents = [
        Document(
            f"doc-{number}",
            f"source-{number}",
            tuple(
                Chunk(f"text {number} {place}", vector_of(f"{number} {place}"), author=f"author {number} {place}")
                for place in range(2)
            ),
            {"n": number},
            title=f"title {number}",
            occurred_at=NOON + timedelta(days=number),
            expires_at=datetime.now(UTC) + timedelta(days=1 + number),
        )
        for number in range(3)
    ]
    for document in documents:
        index_documents(user_id=ALICE, documents=[document])
    with tenant_transaction(ALICE):
        return list(MemoryChunk.objects.values_list("id", flat=True))


@contextmanager
def taken_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def read() -> tuple[set[UUID], int]:
    page = list_chunks(user_id=ALICE, limit=20)
    return {chunk.id for chunk in page.chunks}, page.integrity_failures


@pytest.mark.parametrize("column", [column for column in CHUNKS.columns if column not in NOT_COVERED])
def test_no_cell_passes_for_another_rows(rows: list[UUID], column: str) -> None:
    """Of every column that there is: a new one that no MAC covers fails here."""
    with tenant_transaction(ALICE), connection.cursor() as cursor:
        cursor.execute(f"SELECT id, {column} FROM memory_chunks")
        cells = dict(cursor.fetchall())
        for one, other in permutations(rows, 2):
            if cells[one] == cells[other]:
                continue
            for altered in ({one}, {one, other}):
                try:
                    with taken_back():
                        cursor.execute(
                            f"UPDATE memory_chunks c SET {column} = o.{column} FROM memory_chunks o"
                            " WHERE c.user_hash = o.user_hash AND c.id = ANY (%s)"
                            " AND o.id = CASE c.id WHEN %s THEN %s ELSE %s END",
                            [list(altered), one, other, one],
                        )
                        assert cursor.rowcount == len(altered)
                        if column == "emb_cipher":  # a list does not fetch it
                            for chunk in MemoryChunk.objects.filter(id__in=altered):
                                with pytest.raises(Exception, match="does not match"):
                                    _ = chunk.embedding
                        else:
                            assert read() == (set(rows) - altered, len(altered))
                except IntegrityError:  # a second row at one place of a document
                    assert column in ("doc_id", "chunk_index")
                tried("cells copied from or swapped with another row's")
    assert read() == (set(rows), 0)
