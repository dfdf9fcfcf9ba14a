"""The only door to tenant rows: a transaction that tells Postgres whose it is.

Row-level security compares every row with the setting `app.user_hash`. It is set with `SET LOCAL` (the statement:
Citus does not propagate `set_config()`), first thing in a transaction, and dies with it, so that neither a connection
pool nor PgBouncer in transaction mode can carry it to somebody else.

    with tenant_transaction("person:5"):            # Django, synchronous
        MemoryChunk.objects.filter(source="chat")

    async with set_rls_context(conn, "person:5"):   # psycopg, asynchronous
        await conn.execute("SELECT …")

The Django door is synchronous on purpose: asynchronous code passes whole units of work through `sync_to_async`, so
two tasks can never interleave inside one connection's transaction.
"""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import TransactionStatus

from memory.exceptions import OutsideTenantTransaction, SecondTenant, TenantNotBound
from memory.security import hmac_user, validate_user_id

SETTING = "app.user_hash"
_USER_HASH = re.compile(r"[0-9a-f]{64}")

_bound_user: ContextVar[str | None] = ContextVar("bound_user", default=None)
_open_doors: WeakKeyDictionary[BaseDatabaseWrapper, str] = WeakKeyDictionary()
_async_contexts: WeakKeyDictionary[psycopg.AsyncConnection[Any], str] = WeakKeyDictionary()


@contextmanager
def bind_tenant(user_id: str) -> Iterator[None]:
    """Name the user whose memory the code inside works on. Raises InvalidUserId."""
    validate_user_id(user_id)
    token = _bound_user.set(user_id)
    try:
        yield
    finally:
        _bound_user.reset(token)


def current_user_id() -> str:
    """The bound user. Raises TenantNotBound when there is none."""
    user_id = _bound_user.get()
    if user_id is None:
        raise TenantNotBound(TenantNotBound.__doc__)
    return user_id


@contextmanager
def tenant_transaction(user_id: str | None = None, *, using: str = DEFAULT_DB_ALIAS) -> Iterator[str]:
    """Open a transaction in which exactly one user's rows exist; yields the user hash.

    Without `user_id` it is the bound user's. Inside an open door of the same user it is a savepoint. Inside somebody
    else's atomic block it joins that transaction, and takes the setting back before it leaves, because a released
    savepoint would keep it. Raises TenantNotBound, InvalidUserId, or SecondTenant when another user's door is open.
    """
    with tenant_transaction_by_hash(
        hmac_user(current_user_id() if user_id is None else user_id), using=using
    ) as user_hash:
        yield user_hash


@contextmanager
def tenant_transaction_by_hash(user_hash: str, *, using: str = DEFAULT_DB_ALIAS) -> Iterator[str]:
    """The same door for an operator's maintenance, which knows tenants by the hashes of the census and no user ids.

    Raises ValueError unless `user_hash` is 64 lower-case hex, SecondTenant as `tenant_transaction` does.
    """
    connection = connections[using]
    open_hash = _open_doors.get(connection)
    if open_hash is not None:
        if open_hash != user_hash:
            raise SecondTenant(SecondTenant.__doc__)
        with transaction.atomic(using=using):
            yield user_hash
        return
    joined = connection.in_atomic_block
    with transaction.atomic(using=using):
        _set_local(connection, user_hash)
        _open_doors[connection] = user_hash
        try:
            yield user_hash
            if joined:
                _set_local(connection, "")
        finally:
            _open_doors.pop(connection, None)


def open_user_hash(using: str = DEFAULT_DB_ALIAS) -> str:
    """The user hash of the open door. Raises OutsideTenantTransaction when there is none."""
    user_hash = _open_doors.get(connections[using])
    if user_hash is None:
        raise OutsideTenantTransaction(OutsideTenantTransaction.__doc__)
    return user_hash


@asynccontextmanager
async def set_rls_context(conn: psycopg.AsyncConnection[Any], user_id: str) -> AsyncIterator[str]:
    """Open a transaction on an async psycopg connection in which one user's rows exist; yields the user hash.

    Joins a transaction that is already open (as a savepoint, with the setting taken back at its end). Raises
    InvalidUserId, or SecondTenant when the connection is inside another user's context.
    """
    user_hash = hmac_user(user_id)
    open_hash = _async_contexts.get(conn)
    if open_hash is not None:
        if open_hash != user_hash:
            raise SecondTenant(SecondTenant.__doc__)
        async with conn.transaction():
            yield user_hash
        return
    joined = conn.info.transaction_status != TransactionStatus.IDLE
    async with conn.transaction():
        _async_contexts[conn] = user_hash
        try:
            await conn.execute(_set_local_sql(user_hash).encode("ascii"))
            yield user_hash
            if joined:
                await conn.execute(_set_local_sql("").encode("ascii"))
        finally:
            _async_contexts.pop(conn, None)


def _set_local(connection: BaseDatabaseWrapper, user_hash: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_set_local_sql(user_hash))


def _set_local_sql(user_hash: str) -> str:
    # SET takes no parameters, so the value is checked here; nothing but 64 hex (or the empty reset) gets through.
    if user_hash and not _USER_HASH.fullmatch(user_hash):
        raise ValueError("A user hash is 64 lower-case hex characters.")
    return f"SET LOCAL {SETTING} = '{user_hash}'"
