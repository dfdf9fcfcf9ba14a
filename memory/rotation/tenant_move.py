"""Moves one tenant to the user hash of the current HMAC key.

A small tenant moves in one transaction. A large one would keep its writers waiting, so it is copied first:

    copy        window by window (a range of ids) under the new hash, which has no `tenants` row yet
    index       the copy of a large tenant is put into the indexes that answer its queries (`memory.index.tail`)
    catch up    changes made meanwhile are copied, repeatedly, until few are left
    flip        one short transaction, while no door of the user is open: the last changes, and the `tenants` row
    clear       the rows under the old hash, which has no `tenants` row any more, are deleted

After a kill, the next run starts again with a tenant whose `tenants` row has not moved (it clears the partial copy
first), and clears the old rows of one whose row has. Readers see either the old rows or the new ones, because a door
holds the user's lock (see `memory.tenancy.current_hash`) and the flip takes it exclusively.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import OperationalError

from keys import steps
from keys.retry_while_away import retry_while_away
from memory.exceptions import SealedMemoryError
from memory.index.recipe import Recipe, from_stored_embeddings, recorded
from memory.index.stored_rows import READ_ALL, READ_BEHIND, READ_SOME, StoredRow, read
from memory.index.tail import ROWS_PER_STEP, has_outgrown, index_rows_of_tail
from memory.rls import UserHashes, across_user_hashes
from memory.rotation import tenant_copy
from memory.rotation.orphans import Advance, clear_orphans
from memory.rotation.other_rows import move_other_rows
from memory.rotation.tenant_copy import RowsUnreadable, insert, rebuild
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import RowSet, RowSetAltered, RowSetChange
from memory.tenancy.tenant_row import TenantRow

T = TypeVar("T")

FIRST = UUID(int=0)
FEW_CHANGES = 50
MAX_CATCH_UPS = 10
MAX_FLIPS = 5
LOCK_TIMEOUT_MS = 1_000

SEE_TENANT = "SELECT recipe FROM tenants WHERE user_hash = %s"
DELETE_TENANT = "DELETE FROM tenants WHERE user_hash = %s"
COUNT = "SELECT count(*) FROM memory_chunks WHERE user_hash = %s"


class TenantBusy(SealedMemoryError):
    """Doors of the user stayed open for longer than the move may keep others waiting."""


class TenantKnownTwice(SealedMemoryError):
    """The user is known under the new hash as well: some process made it there without accepting the old key."""


class RowSetBroken(SealedMemoryError):
    """The rows of a tenant are not those of its digest: some were deleted, replayed or rolled back. Moved, they would
    get a digest that is right."""


class _TenantGone(Exception):
    """The tenant is not under its old hash any more: erased, or moved by a commit whose answer was lost."""


@dataclass(frozen=True)
class Move:
    """A tenant to move from one hash to another, and how many chunks its row counts."""

    user_id: str = field(repr=False)
    old: UserHash
    new: UserHash
    rows: int


@dataclass(frozen=True)
class Window:
    """A range of ids, from `low` to the next window's, the versions of its rows when they were copied, and what these
    count for in the set of rows of the old hash.

    `new_rows`: what copying the window has changed in the set of the new hash, in this process: never read from the
    copies, which somebody could change meanwhile. It may take a row of another window away, whose place one of these
    took; only the sum over all windows is meant.
    """

    low: UUID
    versions: "array[int]"
    old_rows: RowSetChange
    new_rows: RowSetChange

    @property
    def digest(self) -> tuple[int, int]:
        """Rows, and the exclusive or of their versions: what DIGESTS returns for an unchanged window."""
        return len(self.versions), reduce(xor, self.versions, 0)


def move_tenant(move: Move, *, batch: int, advance: Advance) -> None:
    """Move a tenant; `advance` is called with the number of rows of each transaction.

    Succeeds too when the tenant has moved already or was erased. Raises RowsUnreadable, RowSetBroken, TenantBusy or
    TenantKnownTwice, and then leaves the tenant under its old hash.
    """
    try:
        if move.rows <= batch:
            advance(_until_free(lambda: _move_at_once(move)))
            steps.reached("small tenant moved")
        else:
            _Copying(move, batch, advance).run()
    except _TenantGone:
        clear_orphans(move.new, batch, advance)
    except (RowsUnreadable, RowSetBroken, TenantBusy, TenantKnownTwice):
        clear_orphans(move.new, batch, advance)
        raise
    clear_orphans(move.old, batch, advance)


def _move_at_once(move: Move) -> int:
    with _flip_door(move) as (user, cursor, tenant):
        stored = read(cursor, READ_ALL, user_hash=move.old)
        steps.reached("small tenant's rows read")
        rebuilt = rebuild(stored, move.old, move.new, from_stored_embeddings(recorded(tenant.recipe)))
        cursor.execute(tenant_copy.DELETE_BEHIND, {"user_hash": move.old, "low": FIRST})
        steps.reached("small tenant's old rows deleted")
        user.enter(move.new)
        # Rows of a copy that was killed while the tenant was larger.
        cursor.execute(tenant_copy.DELETE_BEHIND, {"user_hash": move.new, "low": FIRST})
        new_rows = insert(cursor, move.new, rebuilt)
        steps.reached("small tenant's new rows inserted")
        _flip(cursor, user, move, tenant, _set_of(move.old, stored), new_rows)
    return len(stored)


class _Copying:
    """The move of a large tenant."""

    def __init__(self, move: Move, batch: int, advance: Advance) -> None:
        self._move = move
        self._batch = batch
        self._advance = advance
        self._windows: list[Window] = []
        # Windows of which it is not known what was committed last; they are copied anew when they differ.
        self._unsure: set[int] = set()

    def run(self) -> None:
        clear_orphans(self._move.new, self._batch, self._advance)
        steps.reached("partial copy cleared")
        low: UUID | None = FIRST
        while low is not None:
            low = retry_while_away(self._copy_window, low)
            steps.reached("window copied")
        while has_outgrown(self._move.rows) and retry_while_away(self._index_copy):
            steps.reached("copy indexed")
        for _ in range(MAX_CATCH_UPS):
            if self._catch_up() <= FEW_CHANGES:
                break
        steps.reached("caught up")
        _until_free(self._flip_over, meanwhile=self._catch_up)
        steps.reached("large tenant flipped")

    def _copy_window(self, low: UUID) -> UUID | None:
        """Copy the rows from `low` on; returns where the next window begins, None at the end."""
        move = self._move
        with _door(move) as (user, cursor):
            recipe = _recipe_of_copies(cursor, move)
            stored = read(cursor, READ_BEHIND, user_hash=move.old, low=low, limit=self._batch)
            rebuilt = rebuild(stored, move.old, move.new, recipe)
            user.enter(move.new)
            # A commit whose answer was lost is repeated: the rows that it wrote are deleted first.
            cursor.execute(tenant_copy.DELETE_BEHIND, {"user_hash": move.new, "low": low})
            new_rows = insert(cursor, move.new, rebuilt)
        versions = array("q", [row.version for row in stored])
        self._windows.append(Window(low, versions, _set_of(move.old, stored), new_rows))
        self._advance(len(stored))
        return UUID(int=stored[-1].id.int + 1) if len(stored) == self._batch else None

    def _index_copy(self) -> int:
        """Put a part of the copy into the indexes; otherwise the first queries would scan all of it."""
        with _door(self._move) as (user, cursor):
            user.enter(self._move.new)
            indexed = index_rows_of_tail(cursor, self._move.new, ROWS_PER_STEP)
        self._advance(0)
        return indexed

    def _catch_up(self) -> int:
        """Copy the changes of the windows that differ, each in a transaction; returns how many rows had changed."""
        changes = 0
        for number in retry_while_away(self._differing_now):
            changed, window = retry_while_away(self._catch_up_window, number)
            self._windows[number] = window
            self._unsure.discard(number)
            changes += changed
            self._advance(0)
            steps.reached("window caught up")
        return changes

    def _differing_now(self) -> list[int]:
        with _door(self._move) as (_, cursor):
            return self._differing(cursor)

    def _catch_up_window(self, number: int) -> tuple[int, Window]:
        try:
            with _door(self._move) as (user, cursor):
                return self._bring_up(cursor, user, number)
        except Exception:
            self._unsure = set(range(len(self._windows)))
            raise

    def _flip_over(self) -> None:
        move = self._move
        with _flip_door(move) as (user, cursor, tenant):
            windows = list(self._windows)
            for number in self._differing(cursor):
                _, windows[number] = self._bring_up(cursor, user, number)
            user.enter(move.old)
            before = _count(cursor, move.old)
            user.enter(move.new)
            if _count(cursor, move.new) != before:
                raise RuntimeError("The copy of a tenant has not as many rows as the tenant; nothing was changed.")
            steps.reached("last changes copied")
            old_rows, new_rows = RowSetChange(move.old), RowSetChange(move.new)
            for window in windows:
                old_rows.also(window.old_rows)
                new_rows.also(window.new_rows)
            _flip(cursor, user, move, tenant, old_rows, new_rows)

    def _differing(self, cursor: psycopg.Cursor[Any]) -> list[int]:
        """The numbers of the windows that changed since they were copied. Runs inside the old hash's door."""
        lows = [window.low for window in self._windows]
        cursor.execute(tenant_copy.DIGESTS, {"user_hash": self._move.old, "lows": lows})
        found = {number: (count, digest) for number, count, digest in cursor.fetchall()}
        return [number for number, window in enumerate(self._windows) if found.get(number, (0, 0)) != window.digest]

    def _bring_up(self, cursor: psycopg.Cursor[Any], user: UserHashes, number: int) -> tuple[int, Window]:
        """Make the copy of a window equal to it; returns the rows changed, and the window as it now is."""
        move, window = self._move, self._windows[number]
        low, high = window.low, self._windows[number + 1].low if number + 1 < len(self._windows) else None
        bounds = {"low": low, "high": high}
        user.enter(move.old)
        recipe = _recipe_of_copies(cursor, move)
        cursor.execute(tenant_copy.VERSIONS, {"user_hash": move.old, **bounds})
        versions = dict(cursor.fetchall())
        copied = set(window.versions)
        anew = number in self._unsure
        kept = [row_id for row_id, version in versions.items() if version in copied and not anew]
        changed = [row_id for row_id, version in versions.items() if version not in copied or anew]
        stored = read(cursor, READ_SOME, user_hash=move.old, ids=changed)
        old_rows = tenant_copy.row_set(cursor, move.old, low, high)
        rebuilt = rebuild(stored, move.old, move.new, recipe)
        user.enter(move.new)
        cursor.execute(tenant_copy.DELETE_ALL_BUT, {"user_hash": move.new, "keep": kept, **bounds})
        new_rows = RowSetChange(move.new) if anew else window.new_rows.copy()
        deleted = cursor.fetchall()
        gone = len(deleted) if anew else len(new_rows.removed(deleted))
        new_rows.also(insert(cursor, move.new, rebuilt))
        now = [*(versions[row_id] for row_id in kept), *(row.version for row in stored)]
        return max(gone, len(stored)), Window(window.low, array("q", now), old_rows, new_rows)


@contextmanager
def _door(move: Move, *, exclusive: bool = False) -> Iterator[tuple[UserHashes, psycopg.Cursor[Any]]]:
    """A transaction in the context of the old hash. Raises TenantGone, TenantBusy or TenantKnownTwice."""
    try:
        with (
            across_user_hashes(move.user_id, exclusive=exclusive, lock_timeout_ms=LOCK_TIMEOUT_MS) as user,
            binary_cursor() as cursor,
        ):
            _refuse_known_twice(cursor, user, move)
            yield user, cursor
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise TenantBusy(TenantBusy.__doc__) from None
        raise


@contextmanager
def _flip_door(move: Move) -> Iterator[tuple[UserHashes, psycopg.Cursor[Any], TenantRow]]:
    """The door of the transaction that flips: no other door of the user is open, and the tenant's row is locked.

    The row is locked before any other row is read. A reindex opens no door of the user, but takes that lock too. So the
    rows read here match the recorded index settings, and do so until the flip is committed.
    """
    with _door(move, exclusive=True) as (user, cursor):
        tenant = tenant_row.lock(cursor, move.old)
        if tenant is None:
            raise _TenantGone
        yield user, cursor, tenant


def _refuse_known_twice(cursor: psycopg.Cursor[Any], user: UserHashes, move: Move) -> None:
    user.enter(move.new)
    cursor.execute(SEE_TENANT, [move.new])
    known_under_new = cursor.fetchone() is not None
    user.enter(move.old)
    cursor.execute(SEE_TENANT, [move.old])
    if cursor.fetchone() is None:
        raise _TenantGone
    if known_under_new:
        raise TenantKnownTwice(TenantKnownTwice.__doc__)


def _recipe_of_copies(cursor: psycopg.Cursor[Any], move: Move) -> Recipe:
    """By which recipe to make copies of rows that are read after this, inside the old hash's door.

    A reindex that begins or ends in between leaves a copy with a recipe that its tenant's rows are brought over from:
    never one that says more than is true.
    """
    cursor.execute(SEE_TENANT, [move.old])
    (recipe,) = cursor.fetchone() or ("",)
    return from_stored_embeddings(recorded(recipe))


def _set_of(user_hash: UserHash, stored: Sequence[StoredRow]) -> RowSetChange:
    rows = RowSetChange(user_hash)
    for row in stored:
        rows.add(row)
    return rows


def _new_row_set(tenant: TenantRow, old_rows: RowSetChange, new_rows: RowSetChange) -> bytes | None:
    """The digest for the new hash. Raises RowSetBroken unless the rows were those of the old one's."""
    if tenant.row_set is None:
        # Every row has a MAC from now on; but where nobody accepts rows without one, somebody took the digest away.
        accepted = settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC
        return new_rows.as_set().as_stored(new_rows.user_hash) if accepted else None
    try:
        recorded_set = RowSet.read(old_rows.user_hash, tenant.row_set)
    except RowSetAltered:
        raise RowSetBroken(RowSetBroken.__doc__) from None
    if not recorded_set.holds(old_rows):
        raise RowSetBroken(RowSetBroken.__doc__)
    return new_rows.as_set().as_stored(new_rows.user_hash)


def _flip(
    cursor: psycopg.Cursor[Any],
    user: UserHashes,
    move: Move,
    tenant: TenantRow,
    old_rows: RowSetChange,
    new_rows: RowSetChange,
) -> None:
    """Move the `tenants` row to the new hash, which every door finds that opens after the commit."""
    row_set = _new_row_set(tenant, old_rows, new_rows)
    user.enter(move.old)
    move_other_rows(cursor, user, move.old, move.new)
    cursor.execute(DELETE_TENANT, [move.old])
    user.enter(move.new)
    made_by = from_stored_embeddings(recorded(tenant.recipe)).as_text()
    created = tenant_row.create(
        move.user_id,
        move.new,
        made_by,
        chunk_count=old_rows.chunks,
        created_at=tenant.created_at,
        expiring=tenant.expiring,
        row_set=row_set,
    )
    cursor.execute(*created)
    steps.reached("tenant row moved")


def _count(cursor: psycopg.Cursor[Any], user_hash: UserHash) -> int:
    cursor.execute(COUNT, [user_hash])
    (count,) = cursor.fetchone() or (0,)
    return int(count)


def _until_free(work: Callable[[], T], *, meanwhile: Callable[[], Any] = lambda: None) -> T:
    """Call `work`; while the user is busy, call `meanwhile` and retry. Raises TenantBusy after MAX_FLIPS attempts."""
    for _ in range(MAX_FLIPS - 1):
        try:
            return retry_while_away(work)
        except TenantBusy:
            meanwhile()
    return retry_while_away(work)
