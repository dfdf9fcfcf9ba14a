"""Writing many rows of one user with statements that plain Postgres and Citus both take under row-level security.

INSERT … VALUES of several rows: neither engine lets COPY FROM through, and Citus turns INSERT … SELECT FROM unnest into
COPY. UPDATE … FROM unnest is taken by both, because the constant user hash sends it to a single shard.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Any

import psycopg

from memory.tracing import span

# Few enough that making and writing overlap, enough that statements cost little. Full statements and those of one row
# come again and again, so they are prepared where the settings allow it: planning them costs a fifth of the writing.
ROWS = 100


@dataclass(frozen=True)
class Table:
    """A tenant table: its name, and its columns in order with their types, all but `user_hash`."""

    name: str
    columns: Mapping[str, str]

    def __hash__(self) -> int:
        return hash(self.name)

    def inserting(self, user_hash: str, rows: Sequence[Any]) -> tuple[bytes, list[Any]]:
        """The INSERT of rows, objects with an attribute for every column, and its parameters, for a `RawCursor`: $1,
        $2, … need no parsing on our side. What all rows share (a key id, a time) is one parameter."""
        columns = [list(map(attrgetter(column), rows)) for column in self.columns]
        shared = tuple(len(set(map(id, values))) == 1 for values in columns)
        parameters = [user_hash]
        for values, once in zip(columns, shared, strict=True):
            parameters += values[:1] if once else values
        return insert_sql(self, len(rows), shared), parameters

    def updating(
        self, user_hash: str, rows: Sequence[Any], columns: Sequence[str], *, also: str = ""
    ) -> tuple[str, list[Any]]:
        """The UPDATE that gives stored rows, found by their ids, new values in these columns; `also` is more SET."""
        arrays = [[getattr(row, column) for row in rows] for column in ("id", *columns)]
        return update_sql(self, tuple(columns), also), [*arrays, user_hash]


def insert(
    connection: psycopg.Connection[Any], user_hash: str, rows: Iterable[Any], *tables: Table, size: int | None = None
) -> None:
    """Insert rows into each table, `size` (default: ROWS) a statement, inside the open door of their user.

    In a pipeline: Postgres writes the rows of one statement while those of the next are being made.
    """
    size = size or ROWS
    remaining, cursor = iter(rows), psycopg.RawCursor(connection)
    with connection.pipeline():
        while batch := _made(remaining, size):
            for table in tables:
                cursor.execute(*table.inserting(user_hash, batch), prepare=len(batch) in (1, size))


def _made(rows: Iterator[Any], size: int) -> list[Any]:
    """The next rows, which are sealed as they are taken."""
    with span("seal"):
        return list(islice(rows, size))


@lru_cache(maxsize=512)
def insert_sql(table: Table, rows: int, shared: tuple[bool, ...]) -> bytes:
    """INSERT of so many rows. $1 is the user hash, then come the values column by column; one where all share it."""
    numbers, first = [], 2
    for once in shared:
        numbers.append([f"${first}"] * rows if once else [f"${first + row}" for row in range(rows)])
        first += 1 if once else rows
    values = ", ".join(f"($1, {', '.join(row)})" for row in zip(*numbers, strict=True))
    return f"INSERT INTO {table.name} (user_hash, {', '.join(table.columns)}) VALUES {values}".encode("ascii")  # noqa: S608


@lru_cache
def update_sql(table: Table, columns: tuple[str, ...], also: str = "") -> str:
    """UPDATE of many rows by arrays, one for the ids and one for each column; the user hash comes last."""
    # An array of arrays would have to be rectangular, so a column of arrays travels as an array of texts.
    types = {column: "text" if kind.endswith("[]") else kind for column, kind in table.columns.items()}
    arrays = ", ".join(f"%b::{types[column]}[]" for column in ("id", *columns))
    new = ", ".join([*(f"{each} = new.{each}::{table.columns[each]}" for each in columns), *([also] if also else [])])
    return (
        f"UPDATE {table.name} AS old SET {new} FROM unnest({arrays}) AS new (id, {', '.join(columns)})"  # noqa: S608
        " WHERE old.user_hash = %s AND old.id = new.id"
    )
