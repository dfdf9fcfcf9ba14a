"""Statements made of declared columns, and that the declaration is what the database has."""

from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.db import connection

from memory.index.rows import CHUNKS, VECTORS
from memory.index.stored_rows import StoredRow
from memory.index.tables import Table, insert, insert_sql, update_sql
from memory.index.tail import TERMS
from memory.rls import tenant_transaction
from memory.tenancy.cursors import binary_cursor
from tests.factories import ALICE, remember

# What a table has besides the columns that a writer gives.
GIVEN_BY_THE_DATABASE = {"memory_vectors": {"outgrown"}}


class Term(NamedTuple):
    term: int
    id: UUID
    weight: float


@pytest.mark.django_db
@pytest.mark.parametrize("table", [CHUNKS, VECTORS, TERMS], ids=lambda table: table.name)
def test_the_declared_columns_are_those_of_the_database(table: Table) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT attname, CASE format_type(atttypid, NULL) WHEN 'integer' THEN 'int4' WHEN 'bigint[]' THEN 'int8[]'"
            " WHEN 'bigint' THEN 'int8'"
            " WHEN 'double precision' THEN 'float8' WHEN 'timestamp with time zone' THEN 'timestamptz'"
            " ELSE format_type(atttypid, NULL) END FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            [table.name],
        )
        found: dict[str, Any] = dict(cursor.fetchall())
    for column in ("user_hash", *GIVEN_BY_THE_DATABASE.get(table.name, ())):
        del found[column]
    assert found == dict(table.columns)


def test_a_stored_row_is_read_in_the_order_of_the_declaration() -> None:
    assert StoredRow._fields == (*CHUNKS.columns, "version")


def test_what_all_rows_share_is_sent_once() -> None:
    table = Table("t", {"id": "uuid", "weight": "float8"})
    assert (
        insert_sql(table, 2, (False, True))
        == b"INSERT INTO t (user_hash, id, weight) VALUES ($1, $2, $4), ($1, $3, $4)"
    )


def test_arrays_travel_as_texts() -> None:
    sql = update_sql(Table("t", {"id": "uuid", "labels": "int8[]"}), ("labels",), "outgrown = false")
    assert "labels = new.labels::int8[], outgrown = false FROM unnest(%b::uuid[], %b::text[])" in sql


@pytest.mark.django_db
def test_rows_of_full_and_of_part_statements_arrive() -> None:
    (chunk_id,) = remember(ALICE, "doc", "text")
    with tenant_transaction(ALICE) as user_hash, binary_cursor() as cursor:
        rows = [Term(number, chunk_id, number / 7) for number in range(25)]
        insert(cursor.connection, user_hash, rows, TERMS, size=10)
        cursor.execute("SELECT term, id, weight FROM memory_terms WHERE user_hash = %s ORDER BY term", [user_hash])
        assert [Term(*row) for row in cursor.fetchall()] == rows


@pytest.mark.django_db
def test_nothing_is_sent_for_no_rows() -> None:
    with tenant_transaction(ALICE) as user_hash, binary_cursor() as cursor:
        insert(cursor.connection, user_hash, [], TERMS)
