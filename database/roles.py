"""Connections as the database's other roles: owner (migrates), census (counts across tenants), backup (dumps).

with census() as cursor: ...        count across tenants
with as_owner() as connection: ...  change tables, in management commands only
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections

from .base import DatabaseWrapper


def wrapper(using: str = DEFAULT_DB_ALIAS) -> DatabaseWrapper:
    """This thread's connection `using`. Raises TypeError when it does not use the engine `database`."""
    connection = connections[using]
    if not isinstance(connection, DatabaseWrapper):
        raise TypeError(f"Database {using!r} does not use the engine 'database'.")
    return connection


def connect_as(role: str, using: str = DEFAULT_DB_ALIAS) -> psycopg.Connection:
    """A fresh connection as `role` ("app", "owner", "census" or "backup"), autocommit off, which the caller closes.

    Raises ImproperlyConfigured naming the variable when that role has no connection, psycopg.OperationalError when the
    server does not answer.
    """
    return wrapper(using).connect_as(role)


@contextmanager
def census(using: str = DEFAULT_DB_ALIAS) -> Iterator[psycopg.Cursor[Any]]:
    """A cursor of the census role on a connection of its own, in one transaction. Raises as `connect_as` does."""
    connection = connect_as("census", using)
    with connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def as_owner(using: str = DEFAULT_DB_ALIAS) -> Iterator[DatabaseWrapper]:
    """Within the block, this thread's connection `using` is memory_owner's; afterwards it is again what it was.

    It is a separate connection: it does not see what the application's connection has not committed, and it waits for
    its locks. Raises ImproperlyConfigured without DATABASE_OWNER_URL.
    """
    before = wrapper(using)
    owner = before.as_owner()
    connections[using] = owner
    try:
        yield owner
    finally:
        connections[using] = before
        owner.close()
