"""Re-seals or opens rows of one tenant and table, batch by batch inside the tenant's door.

It uses psycopg's own cursor with binary parameters, which takes a third of the ORM's time. All sealed columns of a row
and its `enc_key_id` change in one statement.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, connections

from keys import steps
from keys.exceptions import KeyConfigurationError
from keys.keyring import get_keyring
from keys.runs import FailedRow
from memory import metrics
from memory.exceptions import IntegrityFailure
from memory.index.stored_rows import failed_row
from memory.rls import tenant_transaction_by_hash
from memory.sealing.fields import sealed_fields
from memory.sealing.opening import SealedRow, open_seals, opens_counted_together
from memory.sealing.row_macs import COLUMN, refuse_altered, resealed_mac
from memory.security import aad_for, open_under, seal
from memory.tenancy import tenant_row
from memory.tenancy.cursors import Send, binary_cursor, sending
from memory.tenancy.planner_settings import planner_settings
from memory.tenancy.tenant_model import TenantModel

# A batch is re-sealed in so many portions, none smaller than this: enough for client and server to overlap.
PORTIONS = 3
SMALLEST_PORTION = 25

# Planner settings that leave one plan. For a tenant without statistics the planner would read and sort all its rows for
# every batch: quadratic time. So rows are read along the primary key, and written by the ctid at which they were
# locked, which is valid until the transaction ends.
OTHER_HMAC_KEY = "its MAC is of an HMAC key that this process does not hold"
ALONG_THE_KEY = {"enable_bitmapscan": "off", "enable_seqscan": "off", "enable_sort": "off"}
AT_THEIR_PLACES = {"enable_indexscan": "off"}


@dataclass(frozen=True)
class SealedTable:
    """The names that the statements about one model's rows are made of."""

    name: str
    row: str
    row_type: str
    columns: tuple[str, ...]
    plain_columns: tuple[str, ...]

    @property
    def is_authenticated(self) -> bool:
        """Whether its rows carry a MAC, which covers their seals."""
        return COLUMN in self.plain_columns

    @property
    def covered(self) -> tuple[str, ...]:
        """What else that MAC covers, and it itself last."""
        return (*(each for each in self.plain_columns if each != COLUMN), COLUMN) if self.is_authenticated else ()

    @property
    def lowest(self) -> str:
        """A value below every row. (With `after IS NULL OR …` each batch would read the tenant from its first row.)"""
        return "'00000000-0000-0000-0000-000000000000'::uuid" if self.row_type == "uuid" else "''"

    @cached_property
    def select(self) -> str:
        """SQL that reads the rows of one tenant after a given row."""
        return (
            f"SELECT {self.row}, ctid::text, enc_key_id, {', '.join((*self.columns, *self.covered))} FROM {self.name}"  # noqa: S608
            f" WHERE user_hash = %(tenant)s AND {self.row} > coalesce(%(after)s::{self.row_type}, {self.lowest})"
        )

    @cached_property
    def update(self) -> str:
        """SQL that stores the new seals and key id of many rows, found by the ctid at which they were locked."""
        columns = (*self.columns, COLUMN) if self.is_authenticated else self.columns
        numbered = [f"c{number}" for number in range(len(columns))]
        sets = ", ".join(f"{column} = new.{value}" for column, value in zip(columns, numbered, strict=True))
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
    # The key of `tenants` is the hash alone.
    row = model._meta.get_field(names[0] if names else "user_hash")
    sealed = sealed_fields(model)
    return SealedTable(
        name=model._meta.db_table,
        row=row.name,
        row_type=str(row.db_type(connections[DEFAULT_DB_ALIAS])),
        columns=tuple(field.attname for field in sealed),
        plain_columns=tuple(
            field.attname
            for field in model._meta.concrete_fields
            if field not in sealed and field.attname not in ("user_hash", row.name, "enc_key_id")
        ),
    )


class Batch(NamedTuple):
    """The outcome for some rows of one tenant, in the order of their ids.

    `done` rows were re-sealed (or verified). `last` is the id after which to go on, None at the end of the table.
    `drifted` are ids of rows that do not open under the sealing key alone, `failures` rows that open under no key.
    """

    done: int
    last: str | None
    failures: Sequence[FailedRow] = ()
    drifted: Sequence[str] = ()


def reseal_batch(tenant: str, table: SealedTable, after: str | None, limit: int, wait: bool) -> Batch:
    """Re-seal up to `limit` rows that name another key than the sealing one. Rows that a writer has locked are
    skipped, or with `wait` waited for."""
    # NO KEY UPDATE is what an UPDATE of these columns takes anyway; a new vector's foreign key need not wait.
    statement = (
        f"{table.select} AND enc_key_id <> %(key_id)s ORDER BY {table.row} LIMIT %(limit)s"
        f" FOR NO KEY UPDATE{'' if wait else ' SKIP LOCKED'}"
    )
    parameters = {"tenant": tenant, "after": after, "key_id": get_keyring().sealing.key_id}
    with _door(tenant, wait=wait, pipelined=True) as send:
        return _reseal_in_portions(send, table, statement, parameters, limit)


def reseal_rows(tenant: str, table: SealedTable, rows: Sequence[str]) -> Batch:
    """Re-seal these rows, whatever key they name."""
    statement = f"{table.select} AND {table.row} = ANY (%(rows)s::{table.row_type}[]) FOR NO KEY UPDATE"
    with _door(tenant, wait=True) as send:
        found = send(statement, {"tenant": tenant, "after": None, "rows": list(rows)}).fetchall()
        done, failures = _reseal(send, table, tenant, found)
        return Batch(done, None, failures)


def open_batch(tenant: str, table: SealedTable, after: str | None, limit: int) -> Batch:
    """Open up to `limit` rows under the sealing key alone."""
    with _door(tenant, wait=False) as send:
        statement = f"{table.select} ORDER BY {table.row} LIMIT %(limit)s"
        rows = send(statement, {"tenant": tenant, "after": after, "limit": limit}).fetchall()
    aad = aad_for(tenant)
    seals = len(table.columns)
    drifted = [
        str(row)
        for row, _, _, *columns in rows
        if not all(_opens_under_sealing_key(blob, aad) for blob in columns[:seals])
    ]
    last = str(rows[-1][0]) if len(rows) >= limit else None
    return Batch(len(rows) - len(drifted), last, drifted=drifted)


@contextmanager
def _door(tenant: str, *, wait: bool, pipelined: bool = False) -> Iterator[Send]:
    with tenant_transaction_by_hash(tenant), binary_cursor() as cursor, sending() as send:
        if wait:
            # The lock that every writer takes first: to wait for single rows instead could deadlock with a writer.
            tenant_row.lock(cursor, tenant)
        pipeline = cursor.connection.pipeline() if pipelined else nullcontext()
        with pipeline, planner_settings(send, ALONG_THE_KEY, restore=False):
            yield send


def _reseal_in_portions(
    send: Send, table: SealedTable, statement: str, parameters: dict[str, Any], limit: int
) -> Batch:
    """Re-seal a batch in portions, so that server and client work at the same time.

    In a pipeline, statements are sent without waiting for their results. The next portion is requested before this one
    is opened and sealed, and this one's UPDATE runs while the next one is opened.
    """
    portion = min(limit, max(SMALLEST_PORTION, limit // PORTIONS))
    asked = send(statement, {**parameters, "limit": portion})
    failures: list[FailedRow] = []
    seen, done, last = 0, 0, None
    while rows := asked.fetchall():
        seen += len(rows)
        full = len(rows) == portion
        last = str(rows[-1][0]) if full else None
        portion = min(portion, limit - seen)
        if full and portion:
            asked = send(statement, {**parameters, "after": rows[-1][0], "limit": portion})
        resealed, failed = _reseal(send, table, parameters["tenant"], rows)
        done, failures = done + resealed, failures + failed
        if not full or not portion:
            return Batch(done, last, failures)
    return Batch(done, None, failures)


def _reseal(send: Send, table: SealedTable, tenant: str, rows: Sequence[Any]) -> tuple[int, list[FailedRow]]:
    """Re-seal fetched, locked rows of one tenant; rows of which a seal does not open stay as they are."""
    steps.reached("rows locked")
    aad = aad_for(tenant)
    resealed, failures = [], []
    seals = len(table.columns)
    with opens_counted_together() as count:
        for row, place, key_id, *columns in rows:
            pk = (tenant,) if row == tenant else (tenant, row)
            try:
                opened = open_seals(
                    SealedRow(tenant, table.name, pk, key_id), *((blob, bytes) for blob in columns[:seals]), count=count
                )
                new = [None if data is None else seal(data, aad) for data in opened.values]
                if table.is_authenticated:
                    new.append(_new_mac(table, tenant, row, key_id, columns, new))
            except IntegrityFailure as failure:
                failures.append(failed_row(failure))
            except KeyConfigurationError:
                failures.append(FailedRow(table.name, str(row), tenant[:8], key_id, OTHER_HMAC_KEY))
            else:
                resealed.append((place, *new))
    if resealed:
        places, *new_columns = (list(values) for values in zip(*resealed, strict=True))
        with planner_settings(send, AT_THEIR_PLACES):
            send(table.update, [get_keyring().sealing.key_id, places, *new_columns, tenant])
        metrics.SEALS.inc(len(resealed) * seals)
        steps.reached("rows updated")
    return len(resealed), failures


def _new_mac(
    table: SealedTable, tenant: str, row_id: Any, key_id: str, columns: Sequence[Any], seals: Sequence[bytes | None]
) -> bytes | None:
    """The MAC that a fetched row gets with other seals of the same values; a row without one stays without.

    A row that says the same keeps its version, so the digest of the tenant's set of rows stays what it is. Raises
    RowAltered for one that is not as it was written: it would get a MAC that is right.
    """
    row = SimpleNamespace(id=row_id, **dict(zip((*table.columns, *table.covered), columns, strict=True)))
    keys = refuse_altered(tenant, row, row.chunk_mac, row.emb_cipher, key_id)
    if keys is None:
        return None
    row.__dict__.update(zip(table.columns, seals, strict=True))
    return resealed_mac(keys, row, row.chunk_mac, row.emb_cipher)


def _opens_under_sealing_key(blob: bytes | None, aad: bytes) -> bool:
    try:
        if blob is not None:
            open_under(get_keyring().sealing, blob, aad)
    except InvalidTag:
        return False
    return True
