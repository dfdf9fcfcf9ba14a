"""Rebuilds what rows are found by from their seals: after a setting of the index changed, or when a graph lags behind.

A tenant is one transaction: its readers go on with the old rows and the old recipe until it commits, its writers wait
for the lock that every writer takes. The recipe in a tenant's row says whether it is done, so a run that was stopped
is simply run again, and two runs at once share the work.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from database.roles import census, connect_as
from memory.exceptions import IntegrityFailure
from memory.index.embedding import embed_passages
from memory.index.recipe import Recipe, configured, recorded
from memory.index.rows import CHUNKS, SEALED_COLUMNS, VECTORS, build_rows
from memory.index.stored_rows import READ_BEHIND, OpenedRow, StoredRow, open_row, read
from memory.index.tail import GRAPH_INDEX, has_outgrown, index_tail
from memory.rls import tenant_transaction_by_hash
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor

ROWS_PER_BATCH = 500
FIRST_ID = UUID(int=0)

TENANTS = "SELECT user_hash, chunk_count, recipe FROM tenants WHERE user_hash > %s ORDER BY user_hash LIMIT 1000"


@dataclass(frozen=True)
class Indexed:
    """A tenant as the census sees it: its size and by which recipe its rows were made searchable."""

    user_hash: str
    chunk_count: int
    recipe: Recipe

    @property
    def is_stale(self) -> bool:
        """Whether the settings ask for another recipe."""
        return self.recipe != configured()


@dataclass(frozen=True)
class Reindexed:
    """What was done for one tenant; `unreadable` rows stay as they were."""

    rows: int = 0
    unreadable: int = 0
    moved: int = 0


def tenants() -> Iterator[Indexed]:
    """Every tenant. Raises ImproperlyConfigured without DATABASE_CENSUS_URL."""
    after = ""
    while True:
        with census() as cursor:
            cursor.execute(TENANTS, [after])
            page = [Indexed(user_hash, count, recorded(recipe)) for user_hash, count, recipe in cursor.fetchall()]
        yield from page
        if not page:
            return
        after = page[-1].user_hash


def reindex_tenant(
    user_hash: str,
    *,
    force: bool = False,
    keep_embeddings: bool = False,
    progress: Callable[[int], None] = lambda rows: None,
) -> Reindexed:
    """Bring one tenant to the configured recipe, then move what has outgrown the exact scan into the indexes.

    Texts are embedded anew when the model has changed, unless the embeddings are the clients' own and kept. `force`
    rebuilds a tenant that is up to date. `progress` is told of every batch. Raises EmbeddingModelUnavailable.
    """
    done = _rebuild(user_hash, force, keep_embeddings, progress)
    return replace(done, moved=index_tail(user_hash=user_hash, limit=2**62))


def rebuild_graph() -> None:
    """REINDEX the vector graph while it is in use, as the owner. Raises ImproperlyConfigured without the owner."""
    connection = connect_as("owner")
    connection.autocommit = True
    with connection:
        connection.execute(f"REINDEX INDEX CONCURRENTLY {GRAPH_INDEX}")


def _rebuild(user_hash: str, force: bool, keep_embeddings: bool, progress: Callable[[int], None]) -> Reindexed:
    with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
        row = tenant_row.lock(cursor, tenant)
        wanted = configured()
        if row is None or (recorded(row.recipe) == wanted and not force):
            return Reindexed()
        embed = recorded(row.recipe).model != wanted.model and not keep_embeddings
        cursor.execute("DELETE FROM memory_terms WHERE user_hash = %s", [tenant])
        done = unreadable = 0
        for stored in _batches(cursor, tenant):
            opened = list(_openable(stored, tenant))
            _write(cursor, tenant, opened, wanted, embed=embed)
            done += len(opened)
            unreadable += len(stored) - len(opened)
            progress(len(stored))
        cursor.execute(*tenant_row.record_recipe(tenant, wanted.as_text()))
        return Reindexed(done, unreadable)


def _batches(cursor: psycopg.Cursor[Any], tenant: UserHash) -> Iterator[list[StoredRow]]:
    low = FIRST_ID
    while batch := read(cursor, READ_BEHIND, user_hash=tenant, low=low, limit=ROWS_PER_BATCH):
        yield batch
        low = UUID(int=batch[-1].id.int + 1)


def _openable(stored: Sequence[StoredRow], tenant: UserHash) -> Iterator[OpenedRow]:
    for row in stored:
        try:
            yield open_row(row, tenant)
        except IntegrityFailure:
            continue  # counted by the caller; such a row answers nothing, whatever it is found by


def _write(
    cursor: psycopg.Cursor[Any], tenant: UserHash, opened: Sequence[OpenedRow], recipe: Recipe, *, embed: bool
) -> None:
    if not opened:
        return
    originals = np.stack([row.original for row in opened])
    if embed:
        originals = embed_passages([row.chunk.text for row in opened])
    rebuilt = list(build_rows(tenant, [row.chunk for row in opened], originals, recipe))
    columns = [column for column in VECTORS.columns if column != "id"]
    # Back into the tail: the row's postings are gone, and the graph has its old vector.
    cursor.execute(*VECTORS.updating(tenant, rebuilt, columns, also="outgrown = false"))
    if embed:
        # All seals of a row stand under one key, so the two others are made anew with the embedding's.
        cursor.execute(*CHUNKS.updating(tenant, rebuilt, SEALED_COLUMNS))


def outgrown(tenant: Indexed) -> bool:
    """Whether the tenant is answered from the indexes, and may have a tail to move."""
    return has_outgrown(tenant.chunk_count)
