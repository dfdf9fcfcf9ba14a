"""A tenant's row in `tenants`: created at the first write, locked by every writer; it counts the tenant's chunks, and
holds the digest of the set of them.

A writer locks the row before it touches any other row of the tenant. So writers of one tenant run one after the other
and cannot deadlock.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from django.conf import settings

from keys.keyring import get_keyring
from memory.sealing.codecs import TextCodec
from memory.sealing.fields import seal_value
from memory.security import UserHash
from memory.tenancy.row_set import RowSet, RowSetChange
from memory.tenancy.row_set import empty as row_set_of_no_rows
from memory.tenancy.steps import run_steps, run_steps_async

LOCK = "SELECT chunk_count, recipe, created_at, expiring, row_set FROM tenants WHERE user_hash = %s FOR UPDATE"
CREATE = (
    "INSERT INTO tenants (user_hash, user_cipher, enc_key_id, hmac_key_id, recipe, chunk_count, created_at, expiring,"
    " row_set) VALUES (%s, %b, %s, %s, %s, %s, coalesce(%s, now()), %s, %b) ON CONFLICT (user_hash) DO NOTHING"
)
CHANGE_ROWS = "UPDATE tenants SET chunk_count = chunk_count + %s, row_set = %b WHERE user_hash = %s"
RECORD_ROW_SET = "UPDATE tenants SET row_set = %b WHERE user_hash = %s"
RECORD_RECIPE = "UPDATE tenants SET recipe = %s WHERE user_hash = %s"
MARK_EXPIRING = "UPDATE tenants SET expiring = true WHERE user_hash = %s AND NOT expiring"

_text = TextCodec()


@dataclass(frozen=True)
class TenantRow:
    """A tenant's row as it was when it was locked. `recipe` is the recorded text of its index settings, or empty.
    `expiring`: whether any of its rows may have an `expires_at`. `row_set`: the digest of the set of its rows."""

    chunk_count: int
    recipe: str
    created_at: datetime
    expiring: bool
    row_set: bytes | None = None


_Statement = tuple[str, Sequence[Any]]
_Steps = Generator[_Statement, tuple[Any, ...] | None, TenantRow]


def lock(cursor: psycopg.Cursor[Any], user_hash: str) -> TenantRow | None:
    """Lock the row until the transaction ends, inside the tenant's door; None when there is no row."""
    row = cursor.execute(LOCK, [user_hash]).fetchone()
    return None if row is None else TenantRow(*row)


def lock_or_create(cursor: psycopg.Cursor[Any], user_id: str, user_hash: UserHash, recipe: str) -> TenantRow:
    """As `lock`; a user who has no row gets one, with the index settings `recipe`."""

    def run(statement: _Statement) -> tuple[Any, ...] | None:
        cursor.execute(*statement)
        return cursor.fetchone() if cursor.description else None

    return run_steps(_locking(user_id, user_hash, recipe), run)


async def lock_or_create_async(
    cursor: psycopg.AsyncCursor[Any], user_id: str, user_hash: UserHash, recipe: str
) -> TenantRow:
    """As `lock_or_create`, over an async connection."""

    async def run(statement: _Statement) -> tuple[Any, ...] | None:
        await cursor.execute(*statement)
        return await cursor.fetchone() if cursor.description else None

    return await run_steps_async(_locking(user_id, user_hash, recipe), run)


def create(
    user_id: str,
    user_hash: UserHash,
    recipe: str,
    *,
    chunk_count: int = 0,
    created_at: datetime | None = None,
    expiring: bool = False,
    row_set: bytes | None = None,
) -> _Statement:
    """The statement that creates the row, unless there is one. It stores the user id, sealed, so that the HMAC rotation
    needs no outside list of users."""
    sealed = bytes(seal_value(_text.encode(user_id), user_hash))
    key_id = get_keyring().sealing.key_id
    named = [user_hash, sealed, key_id, user_hash.hmac_key_id, recipe]
    return CREATE, [*named, chunk_count, created_at, expiring, row_set]


def change_rows(user_hash: str, tenant: TenantRow | None, rows: RowSetChange) -> _Statement:
    """The statement that has count and digest follow what was written, under the row's lock; `tenant`: the row as it
    was locked."""
    return CHANGE_ROWS, [rows.chunks, rows.applied_to(tenant.row_set if tenant else None), user_hash]


def record_row_set(user_hash: str, row_set: RowSet) -> _Statement:
    """The statement that records the digest of all of the tenant's rows, under the row's lock."""
    return RECORD_ROW_SET, [row_set.as_stored(user_hash), user_hash]


def record_recipe(user_hash: str, recipe: str) -> _Statement:
    """The statement that records the index settings of the tenant's rows, under the row's lock."""
    return RECORD_RECIPE, [recipe, user_hash]


def mark_expiring(user_hash: str) -> _Statement:
    """The statement that notes, under the row's lock, that rows with an `expires_at` are stored: from then on scans
    leave out what has expired."""
    return MARK_EXPIRING, [user_hash]


def _locking(user_id: str, user_hash: UserHash, recipe: str) -> _Steps:
    # Lock before creating: this waits for an erasure that is deleting the row, and then creates it again.
    row = yield LOCK, [user_hash]
    if row is None:
        # While rows without a MAC are accepted, a process of the version before may write some to the same tenant.
        row_set = None if settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC else row_set_of_no_rows(user_hash)
        yield create(user_id, user_hash, recipe, row_set=row_set)
        row = yield LOCK, [user_hash]
    if row is None:
        raise RuntimeError("The tenant row vanished between two statements of one transaction.")
    return TenantRow(*row)
