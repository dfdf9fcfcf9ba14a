"""Rows of sealed tables that no index is made of, as the queue of operations: moved to another hash, and inspected.

A move rebuilds chunks and the tenant's own row by itself. Whatever else a user has sealed is sealed anew under the new
hash and otherwise kept as it is, in the transaction that flips.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from keys.keyring import get_keyring
from keys.retry_while_away import retry_while_away
from keys.runs import FailedRow
from memory import metrics
from memory.exceptions import IntegrityFailure, UnknownKeyId
from memory.index.stored_rows import failed_row
from memory.rls import UserHashes, tenant_transaction_by_hash
from memory.rotation.findings import UNKNOWN_KEY, UNREADABLE, Finding, Inspection
from memory.rotation.resealing import SealedTable, sealed_tables
from memory.rotation.tenant_copy import RowsUnreadable
from memory.sealing.opening import Opened, SealedRow, open_seals
from memory.security import UserHash, aad_for, seal
from memory.tenancy.cursors import binary_cursor

REBUILT = ("memory_chunks", "tenants")


def move_other_rows(cursor: psycopg.Cursor[Any], user: UserHashes, old: UserHash, new: UserHash) -> None:
    """Move the rows inside the flip's door, which ends in the old hash's. Raises RowsUnreadable."""
    for table in _other_tables():
        user.enter(old)
        stored = _read(cursor, table, old, " FOR UPDATE")
        rows = list(_resealed(table, stored, old, new))
        cursor.execute(f"DELETE FROM {table.name} WHERE user_hash = %s", [old])  # noqa: S608
        user.enter(new)
        cursor.executemany(_insert_sql(table), [[new, get_keyring().sealing.key_id, *row] for row in rows])
        user.enter(old)


def inspect_other_rows(seen: Inspection, user_hash: UserHash) -> None:
    """Open every seal of a tenant's other rows."""
    for table in _other_tables():
        stored = retry_while_away(_stored, table, user_hash)
        seen.rows += len(stored)
        for row in stored:
            try:
                seen.drifted += _opened(table, row, user_hash).drifted
            except IntegrityFailure as failure:
                kind = UNKNOWN_KEY if isinstance(failure, UnknownKeyId) else UNREADABLE
                finding = Finding(kind, user_hash[:8], str(row[0]), row[1], failure.reason, table.name)
                seen.report([finding])


def _other_tables() -> Iterator[SealedTable]:
    return (table for table in sealed_tables().values() if table.name not in REBUILT)


def _stored(table: SealedTable, user_hash: UserHash) -> list[Any]:
    with tenant_transaction_by_hash(user_hash), binary_cursor() as cursor:
        return _read(cursor, table, user_hash)


def _read(cursor: psycopg.Cursor[Any], table: SealedTable, user_hash: UserHash, lock: str = "") -> list[Any]:
    columns = ", ".join([table.row, "enc_key_id", *table.columns, *table.plain_columns])
    cursor.execute(f"SELECT {columns} FROM {table.name} WHERE user_hash = %s{lock}", [user_hash])  # noqa: S608
    return cursor.fetchall()


def _insert_sql(table: SealedTable) -> str:
    columns = ["user_hash", "enc_key_id", table.row, *table.columns, *table.plain_columns]
    places = ", ".join("%b" if column in table.columns else "%s" for column in columns)
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608


def _opened(table: SealedTable, row: Sequence[Any], user_hash: UserHash) -> Opened:
    row_id, key_id, *values = row
    seals = ((blob, bytes) for blob in values[: len(table.columns)])
    return open_seals(SealedRow(user_hash, table.name, (user_hash, row_id), key_id), *seals)


def _resealed(table: SealedTable, stored: Sequence[Any], old: UserHash, new: UserHash) -> Iterator[list[Any]]:
    """The rows' ids and columns, sealed for the new hash."""
    failures: list[FailedRow] = []
    aad = aad_for(new)
    for row in stored:
        try:
            opened = _opened(table, row, old).values
        except IntegrityFailure as failure:
            failures.append(failed_row(failure))
            continue
        metrics.SEALS.inc(sum(data is not None for data in opened))
        sealed = [None if data is None else seal(data, aad) for data in opened]
        yield [row[0], *sealed, *row[2 + len(table.columns) :]]
    if failures:
        raise RowsUnreadable(failures)
