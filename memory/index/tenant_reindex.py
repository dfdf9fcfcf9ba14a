"""Brings one tenant's rows to another recipe, while the tenant is read and written.

    begin     a short transaction: the tenant's recipe says that rows of two kinds are there from now on
    passes    batch by batch: read rows of another kind, open them, embed and build them anew with no transaction open,
              then write, in a short transaction under the lock that every writer takes, those that have not changed
    flip      under the same lock: the last few rows, and the recipe

A row carries the id of the recipe that it was made by (`memory_vectors.recipe_id`), so a run that was stopped goes on
where it was, and what others wrote meanwhile is found again. Whether a row changed between its read and its write tells
its version. While two kinds of rows are there, searches leave out what does not compare (`memory.index.recipe`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from keys import steps
from keys.leases import HeldLease
from memory.exceptions import IntegrityFailure, SealedMemoryError
from memory.index.context import embedded_text
from memory.index.embedding import embed_passages
from memory.index.recipe import Recipe, mixture, recorded
from memory.index.rows import CHUNKS, SEALED_COLUMNS, VECTORS, ChunkRow, PlainChunk, build_rows
from memory.index.stored_rows import READ_SOME, VERSION, OpenedRow, StoredRow, open_row, read
from memory.index.tail import index_tail
from memory.rls import tenant_transaction_by_hash
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import RowSetChange

# Enough texts to sort by length, few enough that a writer waits for a tenth of a second at most.
ROWS_PER_BATCH = 256
# Rows that may be embedded under the lock at the end; with more the lock is given back and another pass made.
FEW_AT_THE_END = 8
MOST_PASSES = 20
FIRST_ID, LAST_ID = UUID(int=0), UUID(int=2**128 - 1)

TODO = (
    "SELECT id, recipe_id FROM memory_vectors WHERE user_hash = %s AND id >= %s AND id <= %s"
    " AND (recipe_id <> %s OR %s) AND NOT id = ANY (%b::uuid[]) ORDER BY id LIMIT %s"
)
NEWEST = "SELECT id FROM memory_vectors WHERE user_hash = %s ORDER BY id DESC LIMIT 1"
OVER = "SELECT count(*) FROM memory_vectors WHERE user_hash = %s AND recipe_id = %s"
LOCKED_VERSIONS = (
    f"SELECT id, {VERSION} FROM memory_chunks"  # noqa: S608
    " WHERE user_hash = %s AND id = ANY (%b::uuid[]) ORDER BY id FOR NO KEY UPDATE"
)
DELETE_POSTINGS = "DELETE FROM memory_terms WHERE user_hash = %s AND id = ANY (%b::uuid[])"
VECTOR_COLUMNS = [column for column in VECTORS.columns if column != "id"]


class Overtaken(SealedMemoryError):
    """A tenant is written by processes with other settings, faster than it can be brought over: restart these first."""


class NotOurs(SealedMemoryError):
    """The tenant was erased, moved to another hash, or given another recipe meanwhile."""


@dataclass(frozen=True)
class Rebuilt:
    """Rows as they should be, and the ids of those whose embedding is another than the stored one."""

    rows: list[ChunkRow]
    embedded: set[UUID]


class TenantReindex:
    """The reindex of one tenant to `wanted`; `done` rows were made anew, `unreadable` ones stay as they were.

    `force`: also rows that are as wanted. `embed`: make embeddings anew where they are of another model.
    """

    def __init__(
        self,
        user_hash: str,
        wanted: Recipe,
        lease: HeldLease,
        *,
        force: bool,
        embed: bool,
        progress: Callable[[int], None],
    ) -> None:
        self._user_hash, self._wanted, self._lease = user_hash, wanted, lease
        self._force, self._embed, self._progress = force, embed, progress
        self._recipe = wanted  # as it is recorded while this runs
        self.done = self.moved = 0
        self.unreadable: set[UUID] = set()

    def run(self) -> None:
        """Raises Overtaken or NotOurs, and leaves the tenant searchable by what its rows agree on."""
        if not self._begin():
            return
        for _ in range(MOST_PASSES):
            self._pass()
            self._force = False
            if self._flip():
                return
        raise Overtaken(Overtaken.__doc__)

    def _begin(self) -> bool:
        """Record that there are rows of several kinds from now on; False when nothing is to be done."""
        with tenant_transaction_by_hash(self._user_hash) as tenant, binary_cursor() as cursor:
            row = tenant_row.lock(cursor, tenant)
            if row is None:
                return False
            before = recorded(row.recipe)
            # Their form is changed of all rows at once (`memory.index.name_reindex`), and nowhere here.
            self._wanted = self._wanted.with_names(before.names)
            if before == self._wanted and not self._force:
                return False
            if not self._embed:  # its embeddings are the clients' own, whatever model the settings name
                before = mixture(*(replace(kind, model=self._wanted.model) for kind in before.kinds or (before,)))
            self._recipe = before if self._wanted in before.kinds else mixture(before, self._wanted)
            cursor.execute(*tenant_row.record_recipe(tenant, self._recipe.as_text()))
            if self._recipe == self._wanted and not self._force:
                return False
            cursor.execute(OVER, [tenant, self._wanted.id])
            (over,) = cursor.fetchone() or (0,)
        self._progress(0 if self._force else over)
        steps.reached("reindex begun")
        return True

    def _pass(self) -> None:
        """Bring over the rows that there are now; those that come meanwhile are the next pass's."""
        low = FIRST_ID
        with tenant_transaction_by_hash(self._user_hash) as tenant, binary_cursor() as cursor:
            (high,) = cursor.execute(NEWEST, [tenant]).fetchone() or (FIRST_ID,)
        while True:
            with tenant_transaction_by_hash(self._user_hash) as tenant, binary_cursor() as cursor:
                made_by = self._todo(cursor, tenant, ROWS_PER_BATCH, low, high)
                stored = read(cursor, READ_SOME, user_hash=tenant, ids=list(made_by))
            if not made_by:
                return
            rebuilt = self._rebuilt(tenant, stored, made_by)
            steps.reached("batch rebuilt")
            with self._locked() as (tenant, cursor, change):
                self._write(cursor, tenant, stored, rebuilt, change)
            steps.reached("batch written")
            self.moved += index_tail(user_hash=self._user_hash, limit=len(rebuilt.rows))
            self._progress(len(stored))
            self._lease.renew()
            low = UUID(int=max(made_by).int + 1)

    def _flip(self) -> bool:
        """Record the wanted recipe; False when more rows are left than may keep writers waiting."""
        with self._locked() as (tenant, cursor, change):
            made_by = self._todo(cursor, tenant, FEW_AT_THE_END + 1)
            if len(made_by) > FEW_AT_THE_END:
                return False
            stored = read(cursor, READ_SOME, user_hash=tenant, ids=list(made_by))
            self._write(cursor, tenant, stored, self._rebuilt(tenant, stored, made_by), change)
            # A rotation re-seals rows without this lock: such a row has changed, and was not written.
            if self._todo(cursor, tenant, 1):
                return False
            cursor.execute(*tenant_row.record_recipe(tenant, self._wanted.as_text()))
            steps.reached("recipe recorded")
        return True

    @contextmanager
    def _locked(self) -> Iterator[tuple[UserHash, psycopg.Cursor[Any], RowSetChange]]:
        """A transaction that holds the tenant's lock, and what it changes in the set of rows. Raises NotOurs."""
        with tenant_transaction_by_hash(self._user_hash) as tenant, binary_cursor() as cursor:
            row = tenant_row.lock(cursor, tenant)
            if row is None or recorded(row.recipe) != self._recipe:
                raise NotOurs(NotOurs.__doc__)
            change = RowSetChange(tenant)
            yield tenant, cursor, change
            if not change.is_empty:
                cursor.execute(*tenant_row.change_rows(tenant, row, change))

    def _todo(
        self, cursor: psycopg.Cursor[Any], tenant: UserHash, limit: int, low: UUID = FIRST_ID, high: UUID = LAST_ID
    ) -> dict[UUID, int]:
        """Rows from `low` to `high` that are of another kind, in the order of their ids, with their recipes' ids."""
        cursor.execute(TODO, [tenant, low, high, self._wanted.id, self._force, list(self.unreadable), limit])
        return dict(cursor.fetchall())

    def _rebuilt(self, tenant: UserHash, stored: Sequence[StoredRow], made_by: dict[UUID, int]) -> Rebuilt:
        """The rows as they should be, but for those that do not open. Slow where texts are embedded."""
        opened = {row.id: each for row in stored if (each := self._opened(tenant, row))}
        if not opened:
            return Rebuilt([], set())
        originals = np.stack([row.original for row in opened.values()])
        chunks = [row.chunk for row in opened.values()]
        stale = [place for place, chunk in enumerate(chunks) if self._needs_embedding(chunk, made_by)]
        if stale:
            header = self._wanted.header
            originals[stale] = embed_passages([embedded_text(chunks[place], header) for place in stale])
        rows = list(build_rows(tenant, chunks, originals, self._wanted))
        return Rebuilt(rows, {rows[place].id for place in stale})

    def _needs_embedding(self, chunk: PlainChunk, made_by: dict[UUID, int]) -> bool:
        if not self._embed or chunk.id is None:
            return False
        recipe = self._recipe.made(made_by[chunk.id])
        kinds = [recipe] if recipe else self._recipe.kinds
        wanted = self._wanted
        if any(kind.model != wanted.model for kind in kinds):
            return True
        return any(kind.header != wanted.header for kind in kinds) and embedded_text(chunk) != chunk.text

    def _opened(self, tenant: UserHash, row: StoredRow) -> OpenedRow | None:
        try:
            return open_row(row, tenant)
        except IntegrityFailure:
            self.unreadable.add(row.id)  # such a row answers nothing, whatever it is found by
            return None

    def _write(
        self,
        cursor: psycopg.Cursor[Any],
        tenant: UserHash,
        stored: Sequence[StoredRow],
        rebuilt: Rebuilt,
        change: RowSetChange,
    ) -> None:
        """Write rows that are still as they were read; the others are left to the next pass."""
        read_as = {row.id: row.version for row in stored}
        cursor.execute(LOCKED_VERSIONS, [tenant, [row.id for row in rebuilt.rows]])
        unchanged = {row_id for row_id, version in cursor.fetchall() if read_as[row_id] == version}
        rows = [row for row in rebuilt.rows if row.id in unchanged]
        if not rows:
            return
        # Back into the tail: the row's postings go, and the graph has its old vector. The vectors first: that waits for
        # whoever is just making their postings, which are there to be deleted then.
        cursor.execute(*VECTORS.updating(tenant, rows, VECTOR_COLUMNS, also="outgrown = false"))
        cursor.execute(DELETE_POSTINGS, [tenant, list(unchanged)])
        # All seals of a row stand under one key, so all three are made anew where the embedding is.
        if resealed := [row for row in rows if row.id in rebuilt.embedded]:
            cursor.execute(*CHUNKS.updating(tenant, resealed, SEALED_COLUMNS))
            before = {row.id: row for row in stored}
            for row in resealed:
                change.remove(before[row.id])
                change.add_made(row.element)
        self.done += len(rows)
