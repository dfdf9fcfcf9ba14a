"""psycopg cursors that speak binary, vectors included, inside Django's connection and a tenant's door.

Text parameters were five times slower for vectors, and Django's cursor is a third of the speed of psycopg's own; the
hot paths (indexing, retrieval) use this one, everything else the ORM.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from pgvector.psycopg.sparsevec import register_sparsevec_info
from pgvector.psycopg.vector import register_vector_info
from psycopg.types import TypeInfo

from memory.rls import open_user_hash


@contextmanager
def binary_cursor(using: str = DEFAULT_DB_ALIAS) -> Iterator[psycopg.Cursor[Any]]:
    """A psycopg cursor with binary results on the connection of the open door.

    Raises OutsideTenantTransaction without a door; database errors come out as Django's.
    """
    open_user_hash(using)
    wrapper = connections[using]
    raw = wrapper.connection
    with wrapper.wrap_database_errors:
        # Before the cursor is made: it takes a copy of the connection's adapters.
        if not _knows_vectors(raw):
            _register(raw, TypeInfo.fetch(raw, "vector"), TypeInfo.fetch(raw, "sparsevec"))
        with psycopg.Cursor(raw) as cursor:
            cursor.format = psycopg.pq.Format.BINARY
            yield cursor


async def prepare_async(conn: psycopg.AsyncConnection[Any]) -> None:
    """Teach an async connection the vector types, once."""
    if not _knows_vectors(conn):
        _register(conn, await TypeInfo.fetch(conn, "vector"), await TypeInfo.fetch(conn, "sparsevec"))


def _knows_vectors(conn: psycopg.BaseConnection[Any]) -> bool:
    return conn.adapters.types.get("vector") is not None


def _register(conn: psycopg.BaseConnection[Any], vector: TypeInfo | None, sparsevec: TypeInfo | None) -> None:
    register_vector_info(conn, vector)
    if sparsevec is not None:
        register_sparsevec_info(conn, sparsevec)
