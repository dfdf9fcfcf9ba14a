"""Keeps track of the open door of each connection and of the bound user, and so of the rows that can be reached.

A door is a transaction that names one user to row-level security; `memory.rls` opens it. Entering it again adds a
level, as savepoints do in a transaction. Levels are left innermost first, and only a task or thread inside the
innermost level may enter another: otherwise one task could end the transaction, or switch its user, while another one
works in it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from memory.exceptions import DoorOutOfOrder, OutsideTenantTransaction, SecondTenant, TenantNotBound
from memory.security import UserHash, user_hashes, validate_user_id
from memory.tenancy.current_hash import SETTING

Connection = BaseDatabaseWrapper | psycopg.AsyncConnection[Any]


class Door:
    """The open door of one connection: the user hash it names, and its levels, innermost last."""

    def __init__(self, user_hash: UserHash) -> None:
        self.user_hash = user_hash
        # The user of the hash; None for a door that was opened by hash.
        self.user_id: str | None = None
        self.levels: list[Level] = []
        self.broken = False


class Level:
    """One entry into a door."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.outermost = not door.levels
        # The hash that the transaction names already when the level is entered.
        self.named = None if self.outermost else door.user_hash

    def require_innermost(self, *, blocks_agree: bool = True) -> None:
        """Raises DoorOutOfOrder, for this and every other level, unless this level is the one to be left."""
        self.door.broken |= self.door.levels[-1] is not self or not blocks_agree
        if self.door.broken:
            raise DoorOutOfOrder(DoorOutOfOrder.__doc__)


FindUser = Callable[[], str | None]

_find_bound_user: ContextVar[FindUser | None] = ContextVar("find_bound_user", default=None)
_doors: WeakKeyDictionary[Connection, Door] = WeakKeyDictionary()
# The levels that this task or thread is inside of, on any connection; a task inherits those of the one that started it.
_inside: ContextVar[tuple[Level, ...]] = ContextVar("inside", default=())


@contextmanager
def bind_tenant(user_id: str) -> Iterator[None]:
    """Name the user whose memory the code inside works on. Raises InvalidUserId."""
    validate_user_id(user_id)
    with bind_tenant_found_by(lambda: user_id):
        yield


@contextmanager
def bind_tenant_found_by(find: FindUser) -> Iterator[None]:
    """As `bind_tenant`, but `find` returns the user, or None for no user, when the code inside first needs to know."""
    token = _find_bound_user.set(find)
    try:
        yield
    finally:
        _find_bound_user.reset(token)


def may_have_bound_user() -> bool:
    """Whether a user may be bound. Does not call the function that finds the user."""
    return _find_bound_user.get() is not None


def bound_user_id() -> str | None:
    """The bound user, if any."""
    find = _find_bound_user.get()
    return None if find is None else find()


def current_user_id() -> str:
    """The bound user. Raises TenantNotBound when there is none."""
    user_id = bound_user_id()
    if user_id is None:
        raise TenantNotBound(TenantNotBound.__doc__)
    return user_id


def open_door(connection: Connection) -> Door | None:
    """The open door of a connection."""
    return _doors.get(connection)


def open_user_hash(using: str = DEFAULT_DB_ALIAS) -> UserHash:
    """The user hash of the open door. Raises OutsideTenantTransaction when there is none."""
    door = _doors.get(connections[using])
    if door is None:
        raise OutsideTenantTransaction(OutsideTenantTransaction.__doc__)
    return door.user_hash


def reachable_hashes(using: str = DEFAULT_DB_ALIAS) -> tuple[UserHash, ...]:
    """The user hashes whose rows a statement can reach now: the open door's or, on the default connection, those of the
    bound user, one of which the statement's own door will name.

    Raises OutsideTenantTransaction when there is neither.
    """
    door = _doors.get(connections[using])
    if door is not None:
        return (door.user_hash,)
    user_id = bound_user_id() if using == DEFAULT_DB_ALIAS else None
    if user_id is None:
        raise OutsideTenantTransaction(OutsideTenantTransaction.__doc__)
    return user_hashes(user_id)


def new_rows_hash(using: str = DEFAULT_DB_ALIAS) -> UserHash:
    """The one of `reachable_hashes` that a new row carries."""
    hashes = reachable_hashes(using)
    if len(hashes) == 1:
        return hashes[0]
    with connections[using].cursor() as cursor:
        # This statement runs in a door of its own, which finds the hash and names it.
        cursor.execute(f"SELECT current_setting('{SETTING}', true)")
        (named,) = cursor.fetchone()
    return next(user_hash for user_hash in hashes if user_hash == named)


@contextmanager
def door_level(connection: Connection, candidates: Sequence[UserHash]) -> Iterator[Level]:
    """Record a level of a connection's door, from before its first statement until after its last.

    `candidates`: the hashes of the user who enters. Raises SecondTenant when another user's door is open, and
    DoorOutOfOrder when this user's is and another task or thread stands in it.
    """
    door = _doors.get(connection) or Door(candidates[0])
    if door.user_hash not in candidates:
        raise SecondTenant(SecondTenant.__doc__)
    if door.broken or (door.levels and door.levels[-1] not in _inside.get()):
        raise DoorOutOfOrder(DoorOutOfOrder.__doc__)
    level = Level(door)
    door.levels.append(level)
    _doors[connection] = door
    _inside.set((*_inside.get(), level))
    try:
        yield level
    finally:
        door.levels.remove(level)
        _inside.set(tuple(other for other in _inside.get() if other is not level))
        if not door.levels:
            _doors.pop(connection, None)
