"""A tenant's row in `tenants`: created at the first write, locked by every writer; it counts the tenant's chunks.

A writer locks the row before it touches any other row of the tenant. So writers of one tenant run one after the other
and cannot deadlock.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from keys.keyring import get_keyring
from memory.sealing.codecs import TextCodec
from memory.sealing.fields import seal_value
from memory.security import UserHash
from memory.tenancy.steps import run_steps, run_steps_async

LOCK = "SELECT chunk_count, recipe, created_at, expiring FROM tenants WHERE user_hash = %s FOR UPDATE"
CREATE = (
    "INSERT INTO tenants (user_hash, user_cipher, enc_key_id, hmac_key_id, recipe, chunk_count, created_at, expiring)"
    " VALUES (%s, %b, %s, %s, %s, %s, coalesce(%s, now()), %s) ON CONFLICT (user_hash) DO NOTHING"
)
COUNT = "UPDATE tenants SET chunk_count = chunk_count + %s WHERE user_hash = %s"
RECORD_RECIPE = "UPDATE tenants SET recipe = %s WHERE user_hash = %s"
MARK_EXPIRING = "UPDATE tenants SET expiring = true WHERE user_hash = %s AND NOT expiring"

_text = TextCodec()


@dataclass(frozen=True)
class TenantRow:
    """A tenant's row as it was when it was locked. `recipe` is the recorded text of its index settings, or empty.
    `expiring`: whether any of its rows may have an `expires_at`."""

    chunk_count: int
    recipe: str
    created_at: datetime
    expiring: bool


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
) -> _Statement:
    """The statement that creates the row, unless there is one. It stores the user id, sealed, so that the HMAC rotation
    needs no outside list of users."""
    sealed = bytes(seal_value(_text.encode(user_id), user_hash))
    key_id = get_keyring().sealing.key_id
    return CREATE, [user_hash, sealed, key_id, user_hash.hmac_key_id, recipe, chunk_count, created_at, expiring]


def count(user_hash: str, change: int) -> _Statement:
    """The statement that adds `change` to the chunk count, under the row's lock."""
    return COUNT, [change, user_hash]


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
        yield create(user_id, user_hash, recipe)
        row = yield LOCK, [user_hash]
    if row is None:
        raise RuntimeError("The tenant row vanished between two statements of one transaction.")
    return TenantRow(*row)
