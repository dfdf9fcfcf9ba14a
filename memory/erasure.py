"""Deletes chunks, a document, or every row of a user."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from memory.index.names import DOC_ID, stored_name
from memory.index.recipe import recorded
from memory.index.stored_macs import altered_in_index
from memory.rls import across_user_hashes, tenant_transaction
from memory.search.conditions import Group
from memory.search.filters import Scope
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.live_database import tenant_tables
from memory.tenancy.row_set import COUNTED_COLUMNS, RowSetChange
from memory.tenancy.tenant_row import TenantRow

DELETE = "DELETE FROM memory_chunks WHERE user_hash = %(user_hash)s"
IN_SCOPE = "SELECT v.id FROM memory_vectors v WHERE v.user_hash = %(user_hash)s"

Condition = tuple[str, dict[str, Any]]
"""SQL over `memory_chunks`, or over `memory_vectors v` to be appended, and its parameters."""


@dataclass(frozen=True)
class ErasureReceipt:
    """Rows deleted and rows left, per table, counted in the erasing transaction.

    Live tables only: write-ahead log, dead tuples and backups keep ciphertext until vacuum, checkpoint and expiry.
    """

    deleted: dict[str, int]
    remaining: dict[str, int]


def delete_chunk(*, user_id: str, chunk_id: UUID) -> int:
    """Delete one chunk with its vector; returns 1, or 0 when the user has no such chunk."""
    return delete_chunks(user_id=user_id, chunk_ids=[chunk_id])


def delete_chunks(*, user_id: str, chunk_ids: Sequence[UUID]) -> int:
    """Delete these chunks in one transaction; returns how many of them the user had."""
    return _delete(user_id, lambda *_: ("id = ANY (%(ids)s)", {"ids": list(chunk_ids)}))


def delete_document(*, user_id: str, doc_id: str) -> int:
    """Delete all chunks of a document; returns how many there were."""

    def named(user_hash: UserHash, tenant: TenantRow) -> Condition:
        stored = stored_name(user_hash, DOC_ID, doc_id, recorded(tenant.recipe).names)
        return "doc_id = %(doc_id)s", {"doc_id": stored}

    return _delete(user_id, named)


def delete_matching(*, user_id: str, filter: Group) -> int:
    """Delete the chunks that pass a filter, those that have expired too; returns how many. Raises InvalidFilter."""

    def matching(user_hash: UserHash, tenant: TenantRow) -> Condition:
        return Scope(filter=filter).conditions(user_hash, recorded(tenant.recipe), expiring=False)

    return _delete(user_id, matching, by_index=True)


def erase_user(*, user_id: str) -> ErasureReceipt:
    """Delete every row of a user from every tenant table, in one transaction, and count what is left.

    With several HMAC keys it deletes the rows under every hash of the user, so also the copy of an unfinished rotation,
    while no other door of the user is open.
    """
    # Vectors before chunks, or the cascade would delete them uncounted; the tenant's own row is deleted last.
    tables = sorted(tenant_tables(), key=lambda table: (table == "tenants", table == "memory_chunks"))
    deleted, remaining = Counter[str](), Counter[str]()
    with across_user_hashes(user_id, exclusive=True) as user, binary_cursor() as cursor:
        for user_hash in map(user.enter, user.hashes):
            tenant_row.lock(cursor, user_hash)
            deleted.update({table: _delete_all(cursor, table, user_hash) for table in tables})
            remaining.update({table: _count(cursor, table, user_hash) for table in tables})
    return ErasureReceipt(deleted=dict(deleted), remaining=dict(remaining))


def _delete(user_id: str, which: Callable[[UserHash, TenantRow], Condition], *, by_index: bool = False) -> int:
    """`by_index`: the condition is one over `v`, a row of memory_vectors."""
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        tenant = tenant_row.lock(cursor, user_hash)
        if tenant is None:
            return 0
        condition, given = which(user_hash, tenant)
        # The user names rows by what the index says of them: one that somebody has altered there is gone as well, but
        # not from the digest, so that it is missed.
        altered = altered_in_index(cursor, user_hash, condition, given) if by_index else set()
        condition = f"id IN ({IN_SCOPE}{condition})" if by_index else condition
        cursor.execute(f"{DELETE} AND {condition} RETURNING {COUNTED_COLUMNS}", {"user_hash": user_hash, **given})
        change = RowSetChange(user_hash)
        deleted = change.removed(cursor.fetchall(), but=altered)
        if deleted:
            cursor.execute(*tenant_row.change_rows(user_hash, tenant, change))
        return len(deleted)


def _delete_all(cursor: psycopg.Cursor[Any], table: str, user_hash: str) -> int:
    cursor.execute(f"DELETE FROM {table} WHERE user_hash = %s", [user_hash])  # noqa: S608
    return cursor.rowcount


def _count(cursor: psycopg.Cursor[Any], table: str, user_hash: str) -> int:
    cursor.execute(f"SELECT count(*) FROM {table} WHERE user_hash = %s", [user_hash])  # noqa: S608
    (count,) = cursor.fetchone() or (0,)
    return int(count)
