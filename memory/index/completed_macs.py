"""Gives rows from before there were MACs theirs, tenant by tenant, and then the tenant the digest of its set of rows.

What is there then is taken for right: run `verify_integrity` before, which compares all of it with its seals.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from memory.exceptions import IntegrityFailure
from memory.index.stored_macs import authenticate
from memory.index.stored_rows import LOCK_SOME, StoredRow, open_row, read
from memory.rls import tenant_transaction_by_hash
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor, sending
from memory.tenancy.planner_settings import planner_settings
from memory.tenancy.row_set import COUNTED_COLUMNS, CountedRow, RowSetChange

ROWS_PER_BATCH = 200
ROWS_PER_COUNT = 5_000
# Along the primary key: for a tenant without statistics the planner would read and sort all rows for every batch.
ALONG_THE_KEY = {"enable_bitmapscan": "off", "enable_seqscan": "off", "enable_sort": "off"}

WITHOUT_MAC = (
    "SELECT c.id FROM memory_chunks c LEFT JOIN memory_vectors v ON v.user_hash = c.user_hash AND v.id = c.id"
    " WHERE c.user_hash = %s AND c.id > %s AND (c.chunk_mac IS NULL OR (v.id IS NOT NULL AND v.vector_mac IS NULL))"
    " ORDER BY c.id LIMIT %s"
)
COUNTED = f"SELECT {COUNTED_COLUMNS} FROM memory_chunks WHERE user_hash = %s AND id > %s ORDER BY id LIMIT %s"  # noqa: S608


@dataclass(frozen=True)
class Completed:
    """Rows that got MACs, rows that do not open and stay without, and whether the tenant's set got its digest."""

    rows: int = 0
    unreadable: int = 0
    recorded: bool = False


def complete_tenant(user_hash: str, *, progress: Callable[[int], Any] = lambda rows: None) -> Completed:
    """Complete one tenant that has no digest yet; writers wait for a batch at a time, and for the count at the end."""
    done = unreadable = 0
    low: UUID | None = UUID(int=0)
    while low is not None:
        with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
            row = tenant_row.lock(cursor, tenant)
            if row is None or row.row_set is not None:
                return Completed(done, unreadable)
            cursor.execute(WITHOUT_MAC, [tenant, low, ROWS_PER_BATCH])
            ids = [chunk_id for (chunk_id,) in cursor.fetchall()]
            opening = [
                stored.id for stored in read(cursor, LOCK_SOME, user_hash=tenant, ids=ids) if _opens(stored, tenant)
            ]
            authenticate(cursor, tenant, opening)
            low = ids[-1] if len(ids) == ROWS_PER_BATCH else None
            if low is None:
                _record(cursor, tenant)
        done, unreadable = done + len(opening), unreadable + len(ids) - len(opening)
        progress(len(ids))
    return Completed(done, unreadable, recorded=True)


def accept_rows(user_hash: str) -> int:
    """Record the digest of the set of rows that a tenant has now, whatever it was; returns how many are in it."""
    with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
        if tenant_row.lock(cursor, tenant) is None:
            return 0
        return _record(cursor, tenant)


def rows_of_tenant(user_hash: UserHash) -> RowSetChange:
    """The set of all rows of the open door's tenant."""
    rows, after = RowSetChange(user_hash), UUID(int=0)
    with sending() as send, planner_settings(send, ALONG_THE_KEY):
        while batch := [CountedRow(*row) for row in send(COUNTED, [user_hash, after, ROWS_PER_COUNT]).fetchall()]:
            for row in batch:
                rows.add(row)
            after = batch[-1].id
    return rows


def _record(cursor: psycopg.Cursor[Any], tenant: UserHash) -> int:
    rows = rows_of_tenant(tenant)
    cursor.execute(*tenant_row.record_row_set(tenant, rows.as_set()))
    return rows.count


def _opens(row: StoredRow, user_hash: UserHash) -> bool:
    try:
        open_row(row, user_hash)
    except IntegrityFailure:
        return False
    return True
