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

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import TransactionStatus

from keys.keyring import get_keyring
from memory.exceptions import OutsideTenantTransaction, SecondTenant, TenantNotBound
from memory.security import UserHash, user_hashes, validate_user_id
from memory.tenancy.current_hash import Resolution, hold_user, resolution, set_local

_bound_user: ContextVar[str | None] = ContextVar("bound_user", default=None)
_open_doors: WeakKeyDictionary[BaseDatabaseWrapper, UserHash] = WeakKeyDictionary()
_async_contexts: WeakKeyDictionary[psycopg.AsyncConnection[Any], UserHash] = WeakKeyDictionary()


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
def tenant_transaction(
    user_id: str | None = None, *, using: str = DEFAULT_DB_ALIAS, alone: bool = False, pipelined: bool = False
) -> Iterator[UserHash]:
    """Open a transaction in which exactly one user's rows exist; yields the user hash.

    Without `user_id` it is the bound user's. Inside an open door of the same user it is a savepoint. Inside somebody
    else's atomic block it joins that transaction, and takes the setting back before it leaves, because a released
    savepoint would keep it. While several HMAC keys are accepted, it finds out which hash the user has now, and that
    hash stays the user's until the transaction ends; `alone` waits until no other door of the user is open, which is
    for whoever takes the user's `tenants` row away. `pipelined`: statements travel together with the one that names the
    user, and only a fetch and the end wait for the server, where an error shows at the latest; not while several HMAC
    keys are accepted. Raises TenantNotBound, InvalidUserId, or SecondTenant when another user's door is open.
    """
    candidates = user_hashes(current_user_id() if user_id is None else user_id)
    with _door(candidates, using=using, alone=alone, pipelined=pipelined) as user_hash:
        yield user_hash


@contextmanager
def tenant_transaction_by_hash(user_hash: str, *, using: str = DEFAULT_DB_ALIAS) -> Iterator[UserHash]:
    """The same door for an operator's maintenance, which knows tenants by the hashes of the census and no user ids.

    Raises ValueError unless `user_hash` is 64 lower-case hex, SecondTenant as `tenant_transaction` does.
    """
    known = user_hash if isinstance(user_hash, UserHash) else UserHash(user_hash, hmac_key_id="")
    with _door((known,), using=using) as entered:
        if not entered.hmac_key_id:
            entered.hmac_key_id = _hmac_key_id(connections[using], entered)
        yield entered


class UserHashes:
    """An open transaction that can go from one of a user's hashes to another; it starts in the current key's."""

    def __init__(self, connection: BaseDatabaseWrapper, hashes: Sequence[UserHash]) -> None:
        self.hashes = tuple(hashes)
        self._connection = connection

    def enter(self, user_hash: UserHash) -> UserHash:
        """From here on the rows under this hash exist and no others. Raises SecondTenant for another user's hash."""
        _require_same_user(user_hash, self.hashes)
        _set_local(self._connection, user_hash)
        _open_doors[self._connection] = user_hash
        return user_hash


@contextmanager
def across_user_hashes(
    user_id: str, *, alone: bool = False, lock_timeout_ms: int = 0, using: str = DEFAULT_DB_ALIAS
) -> Iterator[UserHashes]:
    """The only door that changes its user hash inside a transaction, and only between the hashes of one user.

    For the HMAC rotation, which moves a user's rows, and the erasure, which must leave nothing under any hash. The
    user's lock is held as in `tenant_transaction`; waiting for it longer than `lock_timeout_ms` (0: no limit) is an
    OperationalError. Not inside another door. Raises InvalidUserId, SecondTenant.
    """
    connection = connections[using]
    if connection in _open_doors:
        raise SecondTenant(SecondTenant.__doc__)
    user = UserHashes(connection, user_hashes(user_id))
    joined = _in_transaction(connection)
    with transaction.atomic(using=using):
        if lock_timeout_ms:
            _found(connection, f"SET LOCAL lock_timeout = {int(lock_timeout_ms)}")
        if len(user.hashes) > 1:
            _found(connection, hold_user(user.hashes, alone=alone))
        try:
            user.enter(user.hashes[0])
            yield user
            if joined:
                _set_local(connection, "")
        finally:
            _open_doors.pop(connection, None)


@contextmanager
def _door(
    candidates: Sequence[UserHash], *, using: str, alone: bool = False, pipelined: bool = False
) -> Iterator[UserHash]:
    connection = connections[using]
    open_hash = _open_doors.get(connection)
    if open_hash is not None:
        _require_same_user(open_hash, candidates)
        with transaction.atomic(using=using):
            if alone and len(candidates) > 1:
                _found(connection, hold_user(candidates, alone=True))
            yield open_hash
        return
    joined = _in_transaction(connection)
    # Which of several hashes is the user's has to be known before anything else is sent.
    pipelined = pipelined and len(candidates) == 1
    with transaction.atomic(using=using), _pipeline(connection) if pipelined else nullcontext():
        user_hash = _enter(connection, candidates, alone=alone)
        _open_doors[connection] = user_hash
        try:
            yield user_hash
            if joined:
                _set_local(connection, "")
        finally:
            _open_doors.pop(connection, None)


@contextmanager
def _pipeline(connection: BaseDatabaseWrapper) -> Iterator[None]:
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield


def _enter(connection: BaseDatabaseWrapper, candidates: Sequence[UserHash], *, alone: bool) -> UserHash:
    if len(candidates) > 1:
        return _resolve(connection, resolution(candidates, alone=alone))
    _set_local(connection, candidates[0])
    return candidates[0]


def outlives_the_door(using: str = DEFAULT_DB_ALIAS) -> bool:
    """Whether the transaction goes on behind the innermost open door, because the caller had begun it."""
    connection = connections[using]
    return len(connection.atomic_blocks) > 1 or not connection.commit_on_exit


def _in_transaction(connection: BaseDatabaseWrapper) -> bool:
    return connection.in_atomic_block or not connection.get_autocommit()


def open_user_hash(using: str = DEFAULT_DB_ALIAS) -> UserHash:
    """The user hash of the open door. Raises OutsideTenantTransaction when there is none."""
    user_hash = _open_doors.get(connections[using])
    if user_hash is None:
        raise OutsideTenantTransaction(OutsideTenantTransaction.__doc__)
    return user_hash


@asynccontextmanager
async def set_rls_context(conn: psycopg.AsyncConnection[Any], user_id: str) -> AsyncIterator[UserHash]:
    """Open a transaction on an async psycopg connection in which one user's rows exist; yields the user hash.

    Joins a transaction that is already open (as a savepoint, with the setting taken back at its end). Which hash the
    user has is found out as in `tenant_transaction`; a connection in pipeline mode does so with a single HMAC key only.
    Raises InvalidUserId, or SecondTenant when the connection is inside another user's context.
    """
    candidates = user_hashes(user_id)
    open_hash = _async_contexts.get(conn)
    if open_hash is not None:
        _require_same_user(open_hash, candidates)
        async with conn.transaction():
            yield open_hash
        return
    joined = conn.info.transaction_status != TransactionStatus.IDLE
    # Before the first wait (the BEGIN is one), so that another task sharing the connection is told apart at once.
    _async_contexts[conn] = candidates[0]
    try:
        async with conn.transaction():
            user_hash = await _resolve_async(conn, resolution(candidates))
            _async_contexts[conn] = user_hash
            yield user_hash
            if joined:
                await conn.execute(set_local("").encode("ascii"))
    finally:
        _async_contexts.pop(conn, None)


def _require_same_user(open_hash: UserHash, candidates: Sequence[UserHash]) -> None:
    if open_hash not in candidates:
        raise SecondTenant(SecondTenant.__doc__)


def _resolve(connection: BaseDatabaseWrapper, steps: Resolution) -> UserHash:
    statement = next(steps)
    while True:
        try:
            statement = steps.send(_found(connection, statement))
        except StopIteration as end:
            return end.value


async def _resolve_async(conn: psycopg.AsyncConnection[Any], steps: Resolution) -> UserHash:
    statement = next(steps)
    while True:
        cursor = await conn.execute(statement.encode("ascii"))
        while cursor.nextset():
            pass
        found = cursor.description is not None and await cursor.fetchone() is not None
        try:
            statement = steps.send(found)
        except StopIteration as end:
            return end.value


def _found(connection: BaseDatabaseWrapper, statement: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        while cursor.nextset():
            pass
        return cursor.description is not None and cursor.fetchone() is not None


def _hmac_key_id(connection: BaseDatabaseWrapper, user_hash: UserHash) -> str:
    """Which HMAC key made the hash of the open door; with a single key nobody need be asked."""
    keyring = get_keyring()
    if not keyring.hmac_accepted:
        return keyring.hmac_current.key_id
    with connection.cursor() as cursor:
        cursor.execute("SELECT hmac_key_id FROM tenants WHERE user_hash = %s", [user_hash])
        row = cursor.fetchone()
    return str(row[0]) if row else ""


def _set_local(connection: BaseDatabaseWrapper, user_hash: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(set_local(user_hash))
