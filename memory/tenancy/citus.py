"""Preconditions and statements to spread tenants over several servers with Citus.

Nothing here runs them: `create_distributed_table` moves data and is the operator's decision, on a coordinator.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.backends.utils import CursorWrapper

from memory.tenancy.live_database import tenant_tables
from memory.tenancy.partitions import partitions

DISTRIBUTION_COLUMN = "user_hash"


@dataclass(frozen=True)
class Precondition:
    """Something that must hold, whether it does, and what to do when it does not."""

    name: str
    holds: bool
    remedy: str = ""


def preconditions(cursor: CursorWrapper) -> Iterator[Precondition]:
    """Everything Citus needs of this database, in the order in which to fix it."""
    available, installed = _citus(cursor)
    yield Precondition(
        "the extension citus is on the server",
        available,
        "Install Citus 13.2 or newer for this Postgres and put citus first into shared_preload_libraries.",
    )
    yield Precondition("the extension citus is in this database", installed, "CREATE EXTENSION citus; as a superuser.")
    yield Precondition(
        "session settings reach the workers",
        _setting(cursor, "citus.propagate_set_commands") == "local",
        "ALTER DATABASE … SET citus.propagate_set_commands = 'local'; without it SET LOCAL app.user_hash stays here and"
        " every tenant sees zero rows.",
    )
    for table in tenant_tables():
        yield from _table_preconditions(cursor, table)


def statements() -> list[str]:
    """The SQL for the coordinator: tenants first, the other tables beside it, shard by shard."""
    first, *others = sorted(tenant_tables(), key=lambda table: (table != "tenants", table != "memory_chunks", table))
    return [
        "SET citus.shard_count = 32; -- about four for each core of all workers together",
        f"SELECT create_distributed_table('{first}', '{DISTRIBUTION_COLUMN}');",
        *(
            f"SELECT create_distributed_table('{table}', '{DISTRIBUTION_COLUMN}', colocate_with => '{first}');"
            for table in others
        ),
    ]


def _citus(cursor: CursorWrapper) -> tuple[bool, bool]:
    cursor.execute("SELECT installed_version FROM pg_available_extensions WHERE name = 'citus'")
    row = cursor.fetchone()
    return row is not None, row is not None and row[0] is not None


def _setting(cursor: CursorWrapper, name: str) -> str | None:
    cursor.execute("SELECT current_setting(%s, true)", [name])
    value: str | None = cursor.fetchone()[0]
    return value


def _table_preconditions(cursor: CursorWrapper, table: str) -> Iterator[Precondition]:
    cursor.execute(
        "SELECT coalesce(string_agg(conname, ', ' ORDER BY conname), '') FROM pg_constraint"
        " WHERE conrelid = to_regclass(%s) AND contype IN ('p', 'u', 'f') AND conparentid = 0 AND %s <> "
        " (SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = conkey[1])",
        [table, DISTRIBUTION_COLUMN],
    )
    (strangers,) = cursor.fetchone()
    yield Precondition(
        f"every key of {table} starts with {DISTRIBUTION_COLUMN}", not strangers, f"These do not: {strangers}."
    )
    cursor.execute(
        "SELECT count(*) FROM pg_policy WHERE polrelid = to_regclass(%s)"
        " AND concat(pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) ~* '\\mselect\\M'",
        [table],
    )
    yield Precondition(
        f"no policy of {table} has a sub-select",
        cursor.fetchone()[0] == 0,
        "Citus refuses them: run `manage.py migrate`.",
    )
    yield Precondition(
        f"{table} is not partitioned here",
        not partitions(cursor, table),
        "Citus shards by itself: `manage.py migrate --partitions 0` while the tables are empty.",
    )
