"""The queue: accepted index calls, each a row of its user, under the user's lock and row-level security.

    accept ──► pending ──claim──► running ──finish──► succeeded | failed ──purge──► gone
                  ▲                  │
                  └────hand back─────┘    or the time of its holder ran out: then the next claim takes it

The calls of one user are done one at a time, in the order in which they were accepted. Who works on one holds it for a
minute at a time; the attempt and the holder stand in every statement that changes it, so whoever lost it changes
nothing. All times are the database's.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import psycopg
from django.conf import settings

from keys import nonce_budget, steps
from keys.keyring import get_keyring
from keys.process import process_name
from memory import metrics
from memory.exceptions import IntegrityFailure, OperationNotFound, QueueFull, TooManyOperations
from memory.index.recipe import configured
from memory.operations import due
from memory.rls import tenant_transaction, tenant_transaction_by_hash
from memory.sealing.codecs import JSONCodec
from memory.sealing.fields import seal_value
from memory.sealing.opening import SealedRow, open_seals
from memory.security import UserHash
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor

# How long a call is held without a sign of life: longer than a portion of chunks takes to embed on a busy machine.
HELD_FOR: Final = timedelta(seconds=60)

PLACE = """
SELECT (SELECT count(*) FROM memory_operations WHERE user_hash = %(user_hash)s AND state IN ('pending', 'running')),
       coalesce((SELECT number FROM memory_operations WHERE user_hash = %(user_hash)s ORDER BY number DESC LIMIT 1), 0)
"""
ACCEPT = (
    "INSERT INTO memory_operations (user_hash, number, payload_cipher, enc_key_id) VALUES (%s, %s, %b, %s) RETURNING id"
)
HEAD = (
    "SELECT id, held_until >= clock_timestamp() FROM memory_operations"
    " WHERE user_hash = %s AND state IN ('pending', 'running') ORDER BY number LIMIT 1"
)
CLAIM = (
    "UPDATE memory_operations SET state = 'running', holder = %s, held_until = clock_timestamp() + %s,"
    " attempts = attempts + 1, started_at = coalesce(started_at, clock_timestamp()), chunks_done = 0"
    " WHERE user_hash = %s AND id = %s RETURNING payload_cipher, enc_key_id, attempts"
)
_OURS = (
    " WHERE user_hash = %(user_hash)s AND id = %(id)s AND holder = %(holder)s AND attempts = %(attempts)s"
    " AND state = 'running'"
)
FOLLOW = (
    "UPDATE memory_operations SET chunks_done = %(done)s, chunks_total = %(total)s,"  # noqa: S608
    f" held_until = clock_timestamp() + %(held_for)s{_OURS}"
)
FINISH = (
    "UPDATE memory_operations SET state = %(state)s, payload_cipher = NULL, result_cipher = %(result)b,"  # noqa: S608
    f" enc_key_id = %(key_id)s, holder = '', held_until = NULL, finished_at = clock_timestamp(){_OURS}"
)
HAND_BACK = (
    "UPDATE memory_operations SET state = 'pending', holder = '', attempts = attempts - %(forgiven)s,"  # noqa: S608
    f" held_until = clock_timestamp() + %(pause)s{_OURS}"
)
SEE = (
    "SELECT id, state, chunks_done, chunks_total, created_at, started_at, finished_at, result_cipher, enc_key_id"
    " FROM memory_operations WHERE user_hash = %s AND id = %s"
)
PURGE = "DELETE FROM memory_operations WHERE user_hash = %s AND finished_at < clock_timestamp() - %s"

_json = JSONCodec()


class TakenOver(Exception):
    """The call is not ours any more: its user was erased, or its time ran out and another worker has it."""


@dataclass(frozen=True)
class Operation:
    """A call as its user sees it. `result`: what it answered, None until then; `problem`: why it failed."""

    id: UUID
    status: str
    chunks_done: int
    chunks_total: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: Mapping[str, Any] | None = field(default=None, repr=False)
    problem: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Claimed:
    """A call that this process works on, for the `attempts`th time."""

    id: UUID
    user_hash: UserHash
    attempts: int
    holder: str
    key_id: str
    payload_cipher: bytes = field(repr=False)

    @cached_property
    def payload(self) -> dict[str, Any]:
        """`user_id` and `body`, opened. Raises IntegrityFailure."""
        row = SealedRow(self.user_hash, "memory_operations", (self.user_hash, self.id), self.key_id)
        opened: dict[str, Any] = open_seals(row, (self.payload_cipher, _json.decode)).values[0]
        return opened

    def door(self) -> AbstractContextManager[UserHash]:
        """The user's door: by the user and not by the hash, because a rotation may have moved the user and the call
        with them meanwhile; unless nobody can tell who the user is."""
        try:
            return tenant_transaction(self.payload["user_id"])
        except IntegrityFailure:
            return tenant_transaction_by_hash(self.user_hash)


def accept(*, user_id: str, body: Mapping[str, Any]) -> Operation:
    """Take an index call, to be done later. `body`: its JSON, of the right shape.

    Raises TooManyOperations for this user, QueueFull for all of them, InvalidUserId.
    """
    nonce_budget.open_account()
    if due.unfinished() >= settings.MEMORY_OPERATIONS_TOTAL:
        raise QueueFull(QueueFull.__doc__)
    payload = _json.encode({"user_id": user_id, "body": body})
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        tenant_row.lock_or_create(cursor, user_id, user_hash, configured().as_text())
        waiting, last = cursor.execute(PLACE, {"user_hash": user_hash}).fetchone() or (0, 0)
        if waiting >= settings.MEMORY_OPERATIONS_PER_USER:
            raise TooManyOperations(TooManyOperations.__doc__)
        sealed = bytes(seal_value(payload, user_hash))
        cursor.execute(ACCEPT, [user_hash, last + 1, sealed, get_keyring().sealing.key_id])
        (operation_id,) = cursor.fetchone() or (None,)
        operation = _see(cursor, user_hash, operation_id)
    metrics.OPERATIONS_ACCEPTED.inc()
    steps.reached("call accepted")
    return operation


def get_operation(*, user_id: str, operation_id: UUID) -> Operation:
    """A call of this user. Raises OperationNotFound, IntegrityFailure."""
    with tenant_transaction(user_id) as user_hash, binary_cursor() as cursor:
        return _see(cursor, user_hash, operation_id)


def claim(user_hash: str) -> Claimed | None:
    """Take the user's next call; None when there is none, or it waits, or another worker has it."""
    holder = process_name()
    with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
        if tenant_row.lock(cursor, tenant) is None:
            return None
        operation_id, held = cursor.execute(HEAD, [tenant]).fetchone() or (None, False)
        if operation_id is None or held:
            return None
        cursor.execute(CLAIM, [holder, HELD_FOR, tenant, operation_id])
        payload, key_id, attempts = cursor.fetchone() or (b"", "", 0)
    steps.reached("call claimed")
    return Claimed(operation_id, tenant, attempts, holder, key_id, payload)


def follow(claimed: Claimed, done: int, total: int) -> None:
    """Say how far it is, and hold it for another minute. Raises TakenOver."""
    with claimed.door() as user_hash, binary_cursor() as cursor:
        _change(cursor, user_hash, claimed, FOLLOW, done=done, total=total, held_for=HELD_FOR)


def finish(
    cursor: psycopg.Cursor[Any], user_hash: UserHash, claimed: Claimed, state: str, result: Mapping[str, Any]
) -> None:
    """Write the answer, and let the payload go, inside an open door of the user. Raises TakenOver."""
    sealed, key_id = bytes(seal_value(_json.encode(dict(result)), user_hash)), get_keyring().sealing.key_id
    _change(cursor, user_hash, claimed, FINISH, state=state, result=sealed, key_id=key_id)


def fail(claimed: Claimed, problem: Mapping[str, Any]) -> None:
    """Report a call as failed; nothing of it is stored. Raises TakenOver."""
    with claimed.door() as user_hash, binary_cursor() as cursor:
        finish(cursor, user_hash, claimed, "failed", problem)


def hand_back(claimed: Claimed, *, pause: timedelta, forgiven: bool) -> None:
    """Let others take it, after a pause; `forgiven`: this attempt does not count. Raises TakenOver."""
    with claimed.door() as user_hash, binary_cursor() as cursor:
        _change(cursor, user_hash, claimed, HAND_BACK, pause=pause, forgiven=int(forgiven))


def purge() -> int:
    """Delete finished calls that are older than MEMORY_OPERATION_KEEP_HOURS; returns how many."""
    kept, purged = timedelta(hours=settings.MEMORY_OPERATION_KEEP_HOURS), 0
    for user_hash in due.with_old_answers(kept):
        with tenant_transaction_by_hash(user_hash) as tenant, binary_cursor() as cursor:
            purged += cursor.execute(PURGE, [tenant, kept]).rowcount
    return purged


def _change(
    cursor: psycopg.Cursor[Any], user_hash: UserHash, claimed: Claimed, statement: str, **parameters: Any
) -> None:
    ours = {"user_hash": user_hash, "id": claimed.id, "holder": claimed.holder, "attempts": claimed.attempts}
    if not cursor.execute(statement, ours | parameters).rowcount:
        raise TakenOver


def _see(cursor: psycopg.Cursor[Any], user_hash: UserHash, operation_id: UUID | None) -> Operation:
    row = cursor.execute(SEE, [user_hash, operation_id]).fetchone()
    if row is None:
        raise OperationNotFound(OperationNotFound.__doc__)
    *facts, result, key_id = row
    operation = Operation(*facts)
    if result is None:
        return operation
    sealed = SealedRow(user_hash, "memory_operations", (user_hash, operation_id), key_id)
    opened = open_seals(sealed, (result, _json.decode)).values[0]
    name = "result" if operation.status == "succeeded" else "problem"
    return Operation(*facts, **{name: opened})
