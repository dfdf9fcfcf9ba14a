"""The only door to tenant rows: a transaction that tells Postgres whose it is.

Row-level security compares every row with the setting `app.user_hash`. It is set with `SET LOCAL` (the statement:
Citus does not propagate `set_config()`), first thing in a transaction, and dies with it, so that neither a connection
pool nor PgBouncer in transaction mode can carry it to somebody else.

    with tenant_transaction("person:5"):            # Django, synchronous
        MemoryChunk.objects.filter(source="chat")

    async with set_rls_context(conn, "person:5"):   # psycopg, asynchronous
        await conn.execute("SELECT …")

In a request, whose user the middleware binds, a statement outside these gets a door of its own, which ends with it:
`memory.access.bound_statements`, 0.2 ms a statement (decision 19). A door is for several statements that belong
together. Django's is synchronous on purpose: asynchronous code passes whole units of work through `sync_to_async`, so
two tasks can never interleave inside one connection's transaction.

Doors of one user nest. One that is left before those inside it closes its connection, so that nothing is read or
committed there any more, and it and those inside it raise DoorOutOfOrder.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import TransactionStatus

from database.roles import wrapper
from keys import nonce_budget
from keys.keyring import get_keyring
from memory.exceptions import DoorOutOfOrder, SecondTenant
from memory.security import UserHash, hmac_user, user_hashes
from memory.tenancy.current_hash import RESET, Resolution, all_hashes, in_a_snapshot, resolution, set_local
from memory.tenancy.cursors import sending
from memory.tenancy.open_doors import (
    Door,
    Level,
    bind_tenant,
    current_user_id,
    door_level,
    open_door,
    open_user_hash,
)
from memory.tenancy.planner_settings import planner_settings, set_local_sql
from memory.tenancy.steps import run_steps, run_steps_async

__all__ = [
    "UserHashes",
    "across_user_hashes",
    "bind_tenant",
    "current_user_id",
    "hmac_user",
    "open_user_hash",
    "set_rls_context",
    "tenant_snapshot",
    "tenant_snapshot_by_hash",
    "tenant_transaction",
    "tenant_transaction_by_hash",
]

_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@contextmanager
def tenant_transaction(
    user_id: str | None = None,
    *,
    using: str = DEFAULT_DB_ALIAS,
    exclusive: bool = False,
    planner: Mapping[str, str] = _NO_SETTINGS,
) -> Iterator[UserHash]:
    """Open a transaction in which exactly one user's rows exist; yields the user hash.

    Without `user_id` it is the bound user's. Inside an open door of the same user it is a savepoint. Inside somebody
    else's atomic block it joins that transaction, and takes the setting back before it leaves, because a released
    savepoint would keep it. While several HMAC keys are accepted, it finds out which hash the user has now; that hash
    stays the user's until the transaction ends.

    `exclusive`: wait until no other door of the user is open, as whoever takes the user's `tenants` row away must.
    `planner`: planner settings that apply while the door is open.

    Raises TenantNotBound, InvalidUserId, SecondTenant when another user's door is open, or DoorOutOfOrder.
    """
    user_id = current_user_id() if user_id is None else user_id
    with _door(connections[using], user_hashes(user_id), exclusive=exclusive, planner=planner) as door:
        door.user_id = user_id
        yield door.user_hash


@contextmanager
def tenant_transaction_by_hash(user_hash: str, *, using: str = DEFAULT_DB_ALIAS) -> Iterator[UserHash]:
    """The same door for an operator's maintenance, which knows tenants by the hashes of the census and no user ids.

    Raises ValueError unless `user_hash` is 64 lower-case hex, SecondTenant and DoorOutOfOrder as `tenant_transaction`.
    """
    known = user_hash if isinstance(user_hash, UserHash) else UserHash(user_hash, hmac_key_id="")
    with _door(connections[using], (known,)) as door:
        if not door.user_hash.hmac_key_id:
            door.user_hash.hmac_key_id = _hmac_key_id(connections[using], door.user_hash)
        yield door.user_hash


@contextmanager
def tenant_snapshot(user_id: str, *, seconds: float, using: str = DEFAULT_DB_ALIAS) -> Iterator[UserHash]:
    """A door in which nothing changes: all statements read one snapshot, none writes, and no writer waits for it.

    The server ends it, and the connection, `seconds` after its begin. Not inside another transaction. Raises
    InvalidUserId, SecondTenant, TransactionManagementError.
    """
    with _snapshot(user_hashes(user_id), seconds, using) as door:
        door.user_id = user_id
        yield door.user_hash


@contextmanager
def tenant_snapshot_by_hash(user_hash: UserHash, *, using: str = DEFAULT_DB_ALIAS) -> Iterator[UserHash]:
    """The same door for an operator's maintenance, without a limit of time."""
    with _snapshot((user_hash,), 0, using) as door:
        yield door.user_hash


@contextmanager
def _snapshot(candidates: Sequence[UserHash], seconds: float, using: str) -> Iterator[Door]:
    connection = connections[using]
    if connection.in_atomic_block:
        raise transaction.TransactionManagementError("A snapshot begins with a transaction of its own.")
    with _door(connection, candidates, steps=in_a_snapshot(candidates, seconds=seconds)) as door:
        yield door


class UserHashes:
    """An open door that can go from one of a user's hashes to another; it starts in the current key's."""

    def __init__(self, connection: BaseDatabaseWrapper, hashes: Sequence[UserHash], door: Door) -> None:
        self.hashes = tuple(hashes)
        self._connection = connection
        self._door = door

    def enter(self, user_hash: UserHash) -> UserHash:
        """From here on the rows under this hash exist and no others. Raises SecondTenant for another user's hash."""
        if user_hash not in self.hashes:
            raise SecondTenant(SecondTenant.__doc__)
        _execute(self._connection, set_local(user_hash))
        self._door.user_hash = user_hash
        return user_hash


@contextmanager
def across_user_hashes(
    user_id: str, *, exclusive: bool = False, lock_timeout_ms: int = 0, using: str = DEFAULT_DB_ALIAS
) -> Iterator[UserHashes]:
    """The only door that changes its user hash inside a transaction, and only between the hashes of one user.

    For the HMAC rotation, which moves a user's rows, and the erasure, which must leave nothing under any hash. The
    user's lock is held as in `tenant_transaction`; waiting for it longer than `lock_timeout_ms` (0: no limit) is an
    OperationalError. Not inside another door. Raises InvalidUserId, SecondTenant.
    """
    connection = connections[using]
    if open_door(connection):
        raise SecondTenant(SecondTenant.__doc__)
    hashes = user_hashes(user_id)
    with _door(
        connection, hashes, steps=all_hashes(hashes, exclusive=exclusive, lock_timeout_ms=lock_timeout_ms)
    ) as door:
        yield UserHashes(connection, hashes, door)


@contextmanager
def _door(
    connection: BaseDatabaseWrapper,
    candidates: Sequence[UserHash],
    *,
    steps: Resolution | None = None,
    exclusive: bool = False,
    planner: Mapping[str, str] = _NO_SETTINGS,
) -> Iterator[Door]:
    """Every door of Django's. `steps`: how its user hash is found and named, where that is not the usual way."""
    joined = connection.in_atomic_block or not connection.get_autocommit()
    # A transaction of our own names its user as it begins. Which of several hashes is the user's is found out in it.
    first = [set_local(candidates[0]), *set_local_sql(planner)] if not (joined or steps or candidates[1:]) else []
    block = transaction.atomic(using=connection.alias)
    if not joined:  # what a transaction sealed that was rolled back
        nonce_budget.settle_when_due(connection.alias)
    with door_level(connection, candidates) as level, wrapper(connection.alias).beginning_with(first), block:
        named = candidates[0] if first else level.named
        steps = steps or resolution(candidates, exclusive=exclusive, named=named)
        level.door.user_hash = run_steps(steps, partial(_execute, connection))
        with _planned(connection, planner) if planner and not first else nullcontext():
            try:
                yield level.door
            finally:
                _require_innermost(connection, level, block)
        if joined and level.outermost:
            _execute(connection, RESET)
    if level.outermost:
        nonce_budget.settle_when_due(connection.alias)


def _require_innermost(connection: BaseDatabaseWrapper, level: Level, block: Any) -> None:
    try:
        level.require_innermost(blocks_agree=connection.atomic_blocks[-1] is block)
    except DoorOutOfOrder:
        # The raw connection first: closing Django's hands it to the pool, still in the hands of those inside the door.
        if connection.connection is not None:
            connection.connection.close()
        connection.close()
        raise


@contextmanager
def _planned(connection: BaseDatabaseWrapper, planner: Mapping[str, str]) -> Iterator[None]:
    with sending(connection.alias) as send, planner_settings(send, planner):
        yield


@asynccontextmanager
async def set_rls_context(conn: psycopg.AsyncConnection[Any], user_id: str) -> AsyncIterator[UserHash]:
    """Open a transaction on an async psycopg connection in which one user's rows exist; yields the user hash.

    Joins a transaction that is already open (as a savepoint, with the setting taken back at its end). Which hash the
    user has is found out as in `tenant_transaction`; a connection in pipeline mode does so with a single HMAC key only.
    Raises InvalidUserId, SecondTenant when the connection is inside another user's context, or DoorOutOfOrder when it
    is inside this user's in another task.
    """
    candidates = user_hashes(user_id)
    joined = conn.info.transaction_status != TransactionStatus.IDLE
    with door_level(conn, candidates) as level:
        async with _transaction(conn):
            steps = resolution(candidates, named=level.named)
            level.door.user_hash = await run_steps_async(steps, partial(_execute_async, conn))
            try:
                yield level.door.user_hash
            finally:
                await _require_innermost_async(conn, level)
            if joined and level.outermost:
                await _execute_async(conn, RESET)
    await nonce_budget.settle_when_due_async(conn)


async def _require_innermost_async(conn: psycopg.AsyncConnection[Any], level: Level) -> None:
    try:
        level.require_innermost()
    except DoorOutOfOrder:
        await conn.close()
        raise


@asynccontextmanager
async def _transaction(conn: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """psycopg's transaction block; a connection that cannot be brought out of it in order is closed."""
    raised: BaseException | None = None
    entered = False
    try:
        async with conn.transaction():
            entered = True
            try:
                yield
            except BaseException as error:
                raised = error
                raise
    except BaseException as error:
        if entered and error is not raised:
            await conn.close()
        raise


def _execute(connection: BaseDatabaseWrapper, statement: str) -> bool:
    """Run SQL of one or several statements; returns whether the last one gave a row."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        while cursor.nextset():
            pass
        return cursor.description is not None and cursor.fetchone() is not None


async def _execute_async(conn: psycopg.AsyncConnection[Any], statement: str) -> bool:
    cursor = await conn.execute(statement.encode("ascii"))
    while cursor.nextset():
        pass
    return cursor.description is not None and await cursor.fetchone() is not None


def _hmac_key_id(connection: BaseDatabaseWrapper, user_hash: UserHash) -> str:
    """Which HMAC key made the hash of the open door; with a single key nobody need be asked."""
    keyring = get_keyring()
    if not keyring.hmac_accepted:
        return keyring.hmac_current.key_id
    with connection.cursor() as cursor:
        row = cursor.execute("SELECT hmac_key_id FROM tenants WHERE user_hash = %s", [user_hash]).fetchone()
    return str(row[0]) if row else ""
