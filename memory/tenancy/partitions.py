"""Makes the tenant tables hash partitions by `user_hash`, at set-up while they are empty.

Every key starts with `user_hash` and every statement has it as a constant, so Postgres prunes to one partition. A
policy of the parent does not guard a partition that is addressed by its own name: partitions get row-level security
of their own, and the application no rights on them at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from memory.exceptions import SealedMemoryError
from memory.tenancy.policies import APPLICATION_ROLE, CENSUS_ROLE, guards

# A table comes before those that refer to it. `tenants` stays whole: it has one row a user, and the census reads all.
TABLES = ("memory_chunks", "memory_vectors", "memory_terms")
MAX_PARTITIONS = 1024


class NotPartitionable(SealedMemoryError):
    """The tables cannot be partitioned as they are."""


@dataclass(frozen=True)
class TableShape:
    """Constraints, indexes and census columns of a table, as SQL, to make them again on its replacement."""

    name: str
    constraints: tuple[tuple[str, str], ...]
    indexes: tuple[str, ...]
    census_columns: tuple[str, ...]


def partition(connection: BaseDatabaseWrapper, count: int) -> None:
    """Recreate the empty tables with `count` hash partitions each (0: none), as their owner, in one transaction.

    Raises NotPartitionable for a count out of bounds, or when a table holds rows.
    """
    if not 0 <= count <= MAX_PARTITIONS:
        raise NotPartitionable(f"Give 0 to {MAX_PARTITIONS} partitions.")
    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
        for table in TABLES:
            _refuse_rows(cursor, table)
        shapes = [_shape(cursor, table) for table in TABLES]
        for shape in shapes:
            _replace(cursor, shape, count)
        for shape in shapes:
            for statement in _attributes(shape, count):
                cursor.execute(statement)


def partitions(cursor: CursorWrapper, table: str) -> list[str]:
    """The names of a table's partitions; none for a plain table."""
    cursor.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(%s) ORDER BY 1", [table]
    )
    return [name for (name,) in cursor.fetchall()]


def _refuse_rows(cursor: CursorWrapper, table: str) -> None:
    # FORCE hides rows from the owner too; `guards()` turns it on again for the new table.
    cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    cursor.execute(f"SELECT EXISTS (SELECT 1 FROM {table})")  # noqa: S608
    if cursor.fetchone()[0]:
        raise NotPartitionable(f"{table} holds rows: partition at set-up, or dump, partition and restore.")


def _shape(cursor: CursorWrapper, table: str) -> TableShape:
    constraints = _rows(
        cursor,
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = to_regclass(%s) AND contype IN ('p', 'u', 'f') AND conparentid = 0 ORDER BY contype DESC",
        table,
    )
    indexes = _rows(
        cursor,
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = to_regclass(%s) AND NOT EXISTS"
        " (SELECT 1 FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))",
        table,
    )
    columns = _rows(
        cursor,
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"  # noqa: S608
        f" AND has_column_privilege('{CENSUS_ROLE}', attrelid, attnum, 'SELECT')",
        table,
    )
    return TableShape(
        name=table,
        constraints=tuple((name, definition) for name, definition in constraints),
        # An index of a partitioned table is defined ON ONLY that table: the partitions would be left without it.
        indexes=tuple(definition.replace(" ON ONLY ", " ON ", 1) for (definition,) in indexes),
        census_columns=tuple(name for (name,) in columns),
    )


def _replace(cursor: CursorWrapper, shape: TableShape, count: int) -> None:
    like = f"(LIKE {shape.name} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE)"
    cursor.execute(f"CREATE TABLE {shape.name}_new {like}{' PARTITION BY HASH (user_hash)' if count else ''}")
    cursor.execute(f"DROP TABLE {shape.name} CASCADE")
    cursor.execute(f"ALTER TABLE {shape.name}_new RENAME TO {shape.name}")
    for remainder in range(count):
        cursor.execute(
            f"CREATE TABLE {shape.name}_p{remainder} PARTITION OF {shape.name}"
            f" FOR VALUES WITH (MODULUS {count}, REMAINDER {remainder})"
        )


def _attributes(shape: TableShape, count: int) -> Iterator[str]:
    for name, definition in shape.constraints:
        yield f"ALTER TABLE {shape.name} ADD CONSTRAINT {name} {definition}"
    yield from shape.indexes
    yield from guards(shape.name, shape.census_columns)
    for remainder in range(count):
        yield from guards(f"{shape.name}_p{remainder}", shape.census_columns)
        yield f"REVOKE ALL ON {shape.name}_p{remainder} FROM {APPLICATION_ROLE}, {CENSUS_ROLE}"


def _rows(cursor: CursorWrapper, sql: str, table: str) -> Sequence[Any]:
    cursor.execute(sql, [table])
    return cursor.fetchall()
