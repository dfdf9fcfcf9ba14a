"""Three users with rows in every tenant table, and the values by which each one's rows are recognised anywhere."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from django.db import connections
from django.test import override_settings

from memory.rls import tenant_transaction
from memory.security import hmac_user
from memory.tenancy.live_database import tenant_tables
from tests.factories import ALICE, BOB, remember

CAROL = "person:3"
USERS = {ALICE: "alice", BOB: "bob", CAROL: "carol"}
DOCUMENTS = 2


@dataclass(frozen=True)
class Victim:
    """A user, the number of its rows by table, and what its rows are recognised by."""

    user_id: str
    user_hash: str
    rows: dict[str, int]
    marks: frozenset[str]


Population = dict[str, Victim]


def populate() -> Population:
    """Store documents of every user, each of two chunks, with a posting. Their names are readable, to be recognised."""
    for user_id, name in USERS.items():
        for number in range(DOCUMENTS):
            said = f"{name} says {number}", f"{name} adds {number}"
            with override_settings(MEMORY_SEALED_NAMES=False):
                remember(user_id, f"{name}s-document-{number}", *said, source=f"{name}s-source")
        with tenant_transaction(user_id), connections["default"].cursor() as cursor:
            cursor.execute(
                "INSERT INTO memory_terms (user_hash, term, id, weight) SELECT user_hash, 1, id, 1 FROM memory_chunks"
            )
    return {user_id: _victim(user_id) for user_id in USERS}


def _victim(user_id: str) -> Victim:
    rows, marks = {}, {hmac_user(user_id), f"{USERS[user_id]}s-"}
    with tenant_transaction(user_id), connections["default"].cursor() as cursor:
        for table in tenant_tables():
            cursor.execute(f"SELECT count(*) FROM {table}")
            rows[table] = cursor.fetchone()[0]
        cursor.execute("SELECT id::text FROM memory_chunks")
        marks |= {chunk_id for (chunk_id,) in cursor.fetchall()}
        for column in ("text_cipher", "meta_cipher", "emb_cipher"):
            cursor.execute(f"SELECT encode({column}, 'hex') FROM memory_chunks")
            marks |= {seal[:40] for (seal,) in cursor.fetchall()}
    return Victim(user_id, hmac_user(user_id), rows, frozenset(marks))


def foreign_marks(shown: str, population: Population, viewer: str | None) -> list[str]:
    """Whatever of the others' rows is in a text that `viewer` (None: nobody) was shown."""
    shown = shown.lower()
    others = [victim for user_id, victim in population.items() if user_id != viewer]
    return [mark for victim in others for mark in victim.marks if mark in shown]


def as_text(rows: Iterable[Any]) -> str:
    """Everything that a result holds, bytes as hex."""
    return " ".join(_text(value) for row in rows for value in (row if isinstance(row, tuple) else (row,)))


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{bytes(value).hex()} {bytes(value).decode('utf-8', 'replace')}"
    return str(value)


@contextmanager
def connected(role: str = "app", **options: Any) -> Iterator[psycopg.Connection[Any]]:
    """A connection of a role's own, in autocommit mode, as somebody with its password makes one."""
    parameters = connections["default"].parameters_of(role)  # type: ignore[attr-defined]
    with psycopg.connect(**parameters, autocommit=True, **options) as conn:
        yield conn


@contextmanager
def pool_of_one() -> Iterator[str]:
    """An alias beside "default", to the same database, whose pool holds one connection."""
    settings_dict = {**connections["default"].settings_dict}
    settings_dict["OPTIONS"] = {**settings_dict["OPTIONS"], "pool": {"min_size": 1, "max_size": 1, "timeout": 5}}
    wrapper = type(connections["default"])(settings_dict, alias="pool_of_one")
    connections["pool_of_one"] = wrapper
    try:
        yield "pool_of_one"
    finally:
        wrapper.close()
        wrapper.close_pool()
        del connections["pool_of_one"]
