"""How the memory's rows are listed, opened and re-sealed: what `keys.rotation` asks for.

Every model with sealed fields is taken along by itself. Tenants are listed by the census role, which may read hashes,
key ids and dates; every row is opened and re-sealed inside its tenant's door by the application's role, on psycopg's
own cursor with binary parameters (a third of the time of the ORM's). All sealed columns of a row and its `enc_key_id`
move in one statement.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import psycopg
from cryptography.exceptions import InvalidTag
from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections

from database.roles import census
from keys import steps
from keys.keyring import get_keyring
from keys.runs import FailedRow
from keys.sources import Batch, KeyCount
from memory import metrics
from memory.exceptions import IntegrityFailure
from memory.index.stored_rows import failed_row
from memory.rls import tenant_transaction_by_hash
from memory.sealing.fields import sealed_fields
from memory.sealing.opening import SealedRow, open_seals
from memory.security import aad_for, open_under, seal
from memory.tenancy import tenant_row
from memory.tenancy.cursors import binary_cursor
from memory.tenancy.tenant_model import TenantModel

# A batch is re-sealed in so many portions, none smaller than this: enough for client and server to overlap.
PORTIONS = 3
SMALLEST_PORTION = 25

# The planner is left no choice. For a tenant that its statistics do not know yet it would read and sort all rows of the
# tenant for every batch, which takes the square of their number. So rows are read along the primary key, and written
# at the places (ctid) where they were locked a moment ago, which hold until the transaction ends.
BY_KEY = (
    "SELECT set_config('enable_indexscan', 'on', true), set_config('enable_bitmapscan', 'off', true),"
    " set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)"
)
BY_PLACE = "SELECT set_config('enable_indexscan', 'off', true)"


@dataclass(frozen=True)
class SealedTable:
    """The names that the statements about one model's rows are made of."""

    name: str
    row: str
    row_type: str
    columns: tuple[str, ...]

    @property
    def lowest(self) -> str:
        """Smaller than every row: with `after IS NULL OR …` each batch would read the tenant from its first row on."""
        return "'00000000-0000-0000-0000-000000000000'::uuid" if self.row_type == "uuid" else "''"

    @cached_property
    def select(self) -> str:
        """Rows of one tenant behind a row, in order."""
        return (
            f"SELECT {self.row}, ctid::text, enc_key_id, {', '.join(self.columns)} FROM {self.name}"  # noqa: S608
            f" WHERE user_hash = %(tenant)s AND {self.row} > coalesce(%(after)s::{self.row_type}, {self.lowest})"
        )

    @cached_property
    def update(self) -> str:
        """Store the new seals of many rows, found by the places where they were locked, and the key they are under."""
        numbered = [f"c{number}" for number in range(len(self.columns))]
        sets = ", ".join(f"{column} = new.{value}" for column, value in zip(self.columns, numbered, strict=True))
        return (
            f"UPDATE {self.name} AS old SET {sets}, enc_key_id = %s"  # noqa: S608
            f" FROM unnest(%b::text[]::tid[], {', '.join(['%b::bytea[]'] * len(numbered))})"
            f" AS new (place, {', '.join(numbered)}) WHERE old.user_hash = %s AND old.ctid = new.place"
        )


@cache
def sealed_tables() -> dict[str, SealedTable]:
    """Every table with sealed columns, by name, in a fixed order."""
    models = [model for model in apps.get_models() if issubclass(model, TenantModel) and sealed_fields(model)]
    return {table.name: table for table in sorted(map(_table_of, models), key=lambda table: table.name)}


def _table_of(model: type[TenantModel]) -> SealedTable:
    names = [name for name in getattr(model._meta.pk, "field_names", ()) if name != "user_hash"]
    # A row of `tenants` has nothing but the hash to be named by.
    row = model._meta.get_field(names[0] if names else "user_hash")
    return SealedTable(
        name=model._meta.db_table,
        row=row.name,
        row_type=str(row.db_type(connections[DEFAULT_DB_ALIAS])),
        columns=tuple(field.attname for field in sealed_fields(model)),
    )


class MemorySource:
    """`keys.sources.SealedSource` over the memory's tables."""

    def tables(self) -> Sequence[str]:
        return list(sealed_tables())

    # --- Seen by the census -------------------------------------------------------------------------------------------
    def tenants(self, *, after: str, limit: int) -> list[str]:
        with census() as cursor:
            cursor.execute(
                "SELECT user_hash FROM tenants WHERE user_hash > %s ORDER BY user_hash LIMIT %s", [after, limit]
            )
            return [user_hash for (user_hash,) in cursor.fetchall()]

    def tenants_not_under(self, key_id: str, *, after: str, limit: int) -> list[str]:
        parts = [
            f"SELECT DISTINCT user_hash FROM {table} WHERE enc_key_id <> %(key_id)s AND user_hash > %(after)s"  # noqa: S608
            for table in sealed_tables()
        ]
        with census() as cursor:
            cursor.execute(
                f"{' UNION '.join(parts)} ORDER BY user_hash LIMIT %(limit)s",
                {"key_id": key_id, "after": after, "limit": limit},
            )
            return [user_hash for (user_hash,) in cursor.fetchall()]

    def key_counts(self) -> list[KeyCount]:
        with census() as cursor:
            return [count for table in sealed_tables() for count in _count(cursor, table)]

    def hmac_key_counts(self) -> dict[str, int]:
        with census() as cursor:
            cursor.execute("SELECT hmac_key_id, count(*) FROM tenants GROUP BY 1 ORDER BY 1")
            return dict(cursor.fetchall())

    def any_row_under(self, key_ids: Sequence[str]) -> list[str]:
        # One EXISTS a table and key: it stops at the first row it meets.
        found = " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE enc_key_id = asked)" for table in sealed_tables())  # noqa: S608
        with census() as cursor:
            cursor.execute(f"SELECT asked FROM unnest(%s::text[]) AS asked WHERE {found}", [list(key_ids)])  # noqa: S608
            return [key_id for (key_id,) in cursor.fetchall()]

    # --- Done inside the tenant's door ----------------------------------------------------------------------------
    def reseal(self, tenant: str, table: str, *, after: str | None, limit: int, wait: bool) -> Batch:
        sealed = sealed_tables()[table]
        # NO KEY UPDATE is what an UPDATE of these columns takes anyway; a new vector's foreign key need not wait.
        statement = (
            f"{sealed.select} AND enc_key_id <> %(key_id)s ORDER BY {sealed.row} LIMIT %(limit)s"
            f" FOR NO KEY UPDATE{'' if wait else ' SKIP LOCKED'}"
        )
        parameters = {"tenant": tenant, "after": after, "key_id": get_keyring().sealing.key_id}
        with _door(tenant, wait=wait) as cursor, cursor.connection.pipeline():
            return _reseal_in_portions(cursor.connection, sealed, statement, parameters, limit)

    def reseal_rows(self, tenant: str, table: str, rows: Sequence[str]) -> Batch:
        sealed = sealed_tables()[table]
        statement = f"{sealed.select} AND {sealed.row} = ANY (%(rows)s::{sealed.row_type}[]) FOR NO KEY UPDATE"
        with _door(tenant, wait=True) as cursor:
            cursor.execute(statement, {"tenant": tenant, "after": None, "rows": list(rows)})
            done, failures = _reseal(cursor.connection, sealed, tenant, cursor.fetchall())
            return Batch(done=done, last=None, failures=tuple(failures))

    def verify(self, tenant: str, table: str, *, after: str | None, limit: int) -> Batch:
        sealed = sealed_tables()[table]
        with _door(tenant, wait=False) as cursor:
            cursor.execute(
                f"{sealed.select} ORDER BY {sealed.row} LIMIT %(limit)s",
                {"tenant": tenant, "after": after, "limit": limit},
            )
            rows = cursor.fetchall()
        aad = aad_for(tenant)
        strays = [
            str(row) for row, _, _, *blobs in rows if not all(_opens_under_sealing_key(blob, aad) for blob in blobs)
        ]
        return Batch(done=len(rows) - len(strays), last=_last(rows, limit), strays=tuple(strays))


@contextmanager
def _door(tenant: str, *, wait: bool) -> Iterator[psycopg.Cursor[Any]]:
    with tenant_transaction_by_hash(tenant), binary_cursor() as cursor:
        if wait:
            # The lock that every writer takes first: waiting for rows one by one could deadlock with one.
            tenant_row.lock(cursor, tenant)
        cursor.execute(BY_KEY)
        yield cursor


def _count(cursor: psycopg.Cursor[Any], table: str) -> Iterator[KeyCount]:
    cursor.execute(
        "SELECT enc_key_id, sum(rows)::bigint, count(*) FROM"  # noqa: S608
        f" (SELECT enc_key_id, user_hash, count(*) AS rows FROM {table} GROUP BY 1, 2) AS per_tenant"
        " GROUP BY 1 ORDER BY 1"
    )
    for key_id, rows, tenants in cursor.fetchall():
        yield KeyCount(table=table, key_id=key_id, rows=int(rows), tenants=tenants)


def _reseal_in_portions(
    connection: psycopg.Connection[Any], table: SealedTable, statement: str, parameters: dict[str, Any], limit: int
) -> Batch:
    """Re-seal a batch, while the database works on its neighbours.

    Inside the pipeline a statement is sent and not waited for. The rows of the next portion are asked for before this
    one is opened and sealed, and its UPDATE runs while the next is: server and client work at the same time.
    """
    portion = min(limit, max(SMALLEST_PORTION, limit // PORTIONS))
    asked = _ask(connection, statement, {**parameters, "limit": portion})
    failures: list[FailedRow] = []
    seen, done, last = 0, 0, None
    while rows := asked.fetchall():
        seen += len(rows)
        full = len(rows) == portion
        last = str(rows[-1][0]) if full else None
        portion = min(portion, limit - seen)
        if full and portion:
            asked = _ask(connection, statement, {**parameters, "after": rows[-1][0], "limit": portion})
        resealed, failed = _reseal(connection, table, parameters["tenant"], rows)
        done, failures = done + resealed, failures + failed
        if not full or not portion:
            return Batch(done, last, failures=tuple(failures))
    return Batch(done, None, failures=tuple(failures))


def _ask(connection: psycopg.Connection[Any], statement: str, parameters: Any = None) -> psycopg.Cursor[Any]:
    cursor = psycopg.Cursor(connection)
    cursor.format = psycopg.pq.Format.BINARY
    return cursor.execute(statement, parameters)


def _reseal(
    connection: psycopg.Connection[Any], table: SealedTable, tenant: str, rows: Sequence[Any]
) -> tuple[int, list[FailedRow]]:
    """Re-seal fetched, locked rows of one tenant; rows of which a seal does not open stay as they are."""
    steps.reached("rows locked")
    aad = aad_for(tenant)
    resealed, failures = [], []
    for row, place, key_id, *blobs in rows:
        pk = (tenant,) if row == tenant else (tenant, row)
        try:
            opened = open_seals(SealedRow(tenant, table.name, pk, key_id), *((blob, bytes) for blob in blobs))
        except IntegrityFailure as failure:
            failures.append(failed_row(failure))
        else:
            resealed.append((place, *(None if data is None else seal(data, aad) for data in opened.values)))
    if resealed:
        places, *columns = (list(values) for values in zip(*resealed, strict=True))
        _ask(connection, BY_PLACE)
        _ask(connection, table.update, [get_keyring().sealing.key_id, places, *columns, tenant])
        _ask(connection, BY_KEY)
        metrics.SEALS.inc(len(resealed) * len(columns))
        steps.reached("rows updated")
    return len(resealed), failures


def _opens_under_sealing_key(blob: bytes | None, aad: bytes) -> bool:
    try:
        if blob is not None:
            open_under(get_keyring().sealing, blob, aad)
    except InvalidTag:
        return False
    return True


def _last(rows: Sequence[Any], limit: int) -> str | None:
    return str(rows[-1][0]) if len(rows) >= limit else None
