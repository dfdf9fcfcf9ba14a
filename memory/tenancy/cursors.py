"""psycopg cursors with binary parameters and results, vectors included, on Django's connection inside an open door.

With text parameters vectors were five times slower, and Django's cursor has a third of the speed of psycopg's own.
Indexing, retrieval, rotation and erasure use these cursors; most other code uses the ORM.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from struct import Struct
from typing import Any

import numpy as np
import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from pgvector.psycopg.sparsevec import register_sparsevec_info
from pgvector.psycopg.vector import VectorBinaryDumper, register_vector_info
from psycopg.abc import Buffer
from psycopg.types import TypeInfo

from memory.tenancy.open_doors import open_user_hash

Parameters = Mapping[str, Any] | Sequence[Any]
Send = Callable[[str, Parameters], psycopg.Cursor[Any]]

# Statements with more are sent unprepared. A search has 7 parameters, one for each term, and those of its filters.
MAX_PREPARED_PARAMETERS = 40

_VECTOR_HEADER = Struct(">HH")  # dimensions, and 16 bits that are unused


@contextmanager
def binary_cursor(using: str = DEFAULT_DB_ALIAS) -> Iterator[psycopg.Cursor[Any]]:
    """A psycopg cursor with binary results on the connection of the open door.

    Raises OutsideTenantTransaction without a door; database errors come out as Django's.
    """
    with _raw_connection(using) as raw, psycopg.Cursor(raw) as cursor:
        cursor.format = psycopg.pq.Format.BINARY
        yield cursor


@contextmanager
def sending(using: str = DEFAULT_DB_ALIAS) -> Iterator[Send]:
    """A function that sends a statement in the open door and returns the cursor that will have its binary result.

    A statement with parameters is prepared at its first use on a connection, where the settings allow it, unless it has
    more than MAX_PREPARED_PARAMETERS: such a form seldom repeats. Inside `pipeline` only a fetch waits for results.
    Raises as `binary_cursor` does.
    """
    with _raw_connection(using) as raw:

        def send(sql: str, parameters: Parameters = ()) -> psycopg.Cursor[Any]:
            cursor = psycopg.Cursor(raw)
            cursor.format = psycopg.pq.Format.BINARY
            return cursor.execute(sql, parameters, prepare=0 < len(parameters) <= MAX_PREPARED_PARAMETERS)

        yield send


@contextmanager
def pipeline(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Statements inside travel together: only a fetch and the end wait for the server, where errors show at the
    latest."""
    with _raw_connection(using) as raw, raw.pipeline():
        yield


@contextmanager
def _raw_connection(using: str) -> Iterator[psycopg.Connection[Any]]:
    open_user_hash(using)
    wrapper = connections[using]
    with wrapper.wrap_database_errors:
        # Before any cursor is made: it takes a copy of the connection's adapters.
        _register_once(wrapper.connection)
        yield wrapper.connection


def _register_once(conn: psycopg.Connection[Any]) -> None:
    if not _is_registered(conn):
        _register(conn, TypeInfo.fetch(conn, "vector"), TypeInfo.fetch(conn, "sparsevec"))


async def register_vectors_async(conn: psycopg.AsyncConnection[Any]) -> None:
    """Register the vector types on an async connection, once."""
    if not _is_registered(conn):
        _register(conn, await TypeInfo.fetch(conn, "vector"), await TypeInfo.fetch(conn, "sparsevec"))


def _is_registered(conn: psycopg.BaseConnection[Any]) -> bool:
    return conn.adapters.types.get("vector") is not None


class _FloatsDumper(VectorBinaryDumper):
    """A numpy vector in pgvector's binary form, in one step where the library takes five."""

    def dump(self, obj: Any) -> Buffer | None:
        if obj.ndim != 1:
            return super().dump(obj)
        return _VECTOR_HEADER.pack(len(obj), 0) + obj.astype(">f4").tobytes()


def _register(conn: psycopg.BaseConnection[Any], vector: TypeInfo | None, sparsevec: TypeInfo | None) -> None:
    register_vector_info(conn, vector)
    if vector is not None:
        conn.adapters.register_dumper(np.ndarray, type("FloatsDumper", (_FloatsDumper,), {"oid": vector.oid}))
    if sparsevec is not None:
        register_sparsevec_info(conn, sparsevec)
