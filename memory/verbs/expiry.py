"""Purges what has expired: no read gives it since its time, and this deletes it.

Tenant by tenant, in short transactions under the lock that every writer takes. So it may run at any time and in several
processes at once, beside writers and rotations; one that was stopped is simply run again.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from keys.retry_while_away import retry_while_away
from memory import metrics
from memory.rls import tenant_transaction_by_hash
from memory.security import UserHash
from memory.tenancy import census, tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.row_set import COUNTED_COLUMNS, RowSetChange

ROWS_PER_BATCH = 500

TENANTS = (
    "SELECT user_hash, hmac_key_id FROM tenants WHERE user_hash > %s AND EXISTS (SELECT 1 FROM memory_chunks AS chunk"
    " WHERE chunk.user_hash = tenants.user_hash AND chunk.expires_at <= now()) ORDER BY user_hash LIMIT %s"
)
EXPIRED = (
    f"SELECT {COUNTED_COLUMNS} FROM memory_chunks WHERE user_hash = %s AND expires_at <= now()"  # noqa: S608
    " ORDER BY expires_at LIMIT %s FOR UPDATE"
)
REMAINING = "SELECT count(*) FROM memory_chunks WHERE expires_at <= now()"
# What belongs to a chunk before the chunk, or the cascade would delete it uncounted.
TABLES = ("memory_terms", "memory_vectors", "memory_chunks")


@dataclass
class Purged:
    """Rows deleted, by table, of so many tenants; and expired chunks that were left, as the census saw them at the end:
    those that expired meanwhile."""

    tenants: int = 0
    deleted: Counter[str] = field(default_factory=Counter)
    remaining: int = 0


def purge_expired(*, progress: Callable[[int], Any] = lambda chunks: None) -> Purged:
    """Delete every chunk that has expired by now, with all that it is found by.

    `progress` is called with the chunks of each transaction. Live tables only, as an erasure: the write-ahead log, dead
    tuples and backups keep ciphertext. Raises ImproperlyConfigured without DATABASE_CENSUS_URL.
    """
    purged = Purged()
    for tenant in census.in_pages(_tenants, after=""):
        purged.tenants += 1
        for deleted in _purge_tenant(tenant):
            purged.deleted.update(deleted)
            progress(deleted["memory_chunks"])
    purged.remaining = retry_while_away(_remaining)
    return purged


def _tenants(*, after: str) -> list[UserHash]:
    with census.census() as cursor:
        cursor.execute(TENANTS, [after, census.TENANTS_A_PAGE])
        return [UserHash(*row) for row in cursor.fetchall()]


def _remaining() -> int:
    with census.census() as cursor:
        cursor.execute(REMAINING)
        (count,) = cursor.fetchone() or (0,)
        return int(count)


def _purge_tenant(tenant: UserHash) -> Iterator[dict[str, int]]:
    while (deleted := retry_while_away(_purge_batch, tenant))["memory_chunks"]:
        metrics.CHUNKS_PURGED.inc(deleted["memory_chunks"])
        yield deleted


def _purge_batch(tenant: UserHash) -> dict[str, int]:
    with tenant_transaction_by_hash(tenant) as user_hash, binary_cursor() as cursor:
        row = tenant_row.lock(cursor, user_hash)
        cursor.execute(EXPIRED, [user_hash, ROWS_PER_BATCH])
        change = RowSetChange(user_hash)
        ids = [chunk.id for chunk in change.removed(cursor.fetchall())]
        deleted = {table: _delete(cursor, table, user_hash, ids) for table in TABLES}
        if ids:
            cursor.execute(*tenant_row.change_rows(user_hash, row, change))
        return deleted


def _delete(cursor: psycopg.Cursor[Any], table: str, user_hash: str, ids: list[Any]) -> int:
    if not ids:
        return 0
    cursor.execute(f"DELETE FROM {table} WHERE user_hash = %s AND id = ANY (%b::uuid[])", [user_hash, ids])  # noqa: S608
    return cursor.rowcount
