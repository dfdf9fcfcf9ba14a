"""`manage.py benchmark_index`, with few rows: that both sides store the same and nothing stays behind."""

import json
from io import StringIO

import numpy as np
import psycopg
import pytest
from django.core.management import CommandError, call_command

from memory.benchmarks.index import (
    EVERYTHING,
    HEADERS,
    NO_KEYWORDS,
    NO_MACS,
    PLAIN,
    PLAIN_WORDS,
    Load,
    summary,
    targets,
    with_headers,
    without_keywords,
    without_macs,
    write_plain,
    write_product,
    write_without_keywords,
    write_without_macs,
)
from memory.benchmarks.plain_tables import owner_connection, plain_tables
from memory.benchmarks.tenants import benchmark_user, throwaway_tenants
from memory.documents.document import Chunk, Document
from memory.listing import list_chunks
from memory.models import MemoryVector, Tenant
from memory.rls import tenant_transaction

ARGUMENTS = ("--rows", "25", "--batch", "10", "--tenants", "2", "--words", "5", "--verbosity", "0")


def schemas() -> list[str]:
    with owner_connection() as conn:
        found = conn.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'benchmark%'").fetchall()
    return [name for (name,) in found]


@pytest.mark.django_db(transaction=True)
def test_prints_one_json_object_and_leaves_nothing_behind() -> None:
    out = StringIO()
    call_command("benchmark_index", "--json", *ARGUMENTS, stdout=out)
    report = json.loads(out.getvalue())
    assert [row["write path"] for row in report["results"]] == [
        EVERYTHING, NO_KEYWORDS, PLAIN, PLAIN_WORDS, NO_MACS, HEADERS,
    ]  # fmt: skip
    assert {row["rows"] for row in report["results"]} == {25}
    assert [target["bound"] for target in report["targets"]] == ["≥ 0.7", "≥ 0.7", "≥ 0.95", "< 0.1", "≥ 2500"]
    assert schemas() == []
    for number in range(2):
        user_id = benchmark_user(f"index-{number}")
        assert list_chunks(user_id=user_id, limit=1).chunks == []
        assert list_chunks(user_id=without_keywords(user_id), limit=1).chunks == []
        assert list_chunks(user_id=with_headers(user_id), limit=1).chunks == []


@pytest.mark.django_db(transaction=True)
def test_the_plain_side_stores_the_rows_unsealed_and_replaces_them() -> None:
    vector = np.eye(1, 384, dtype=np.float32)[0]
    document = Document("doc", "notes", (Chunk("in the clear", vector),), {"n": 1})
    with plain_tables() as conn:
        for _ in range(2):
            write_plain(conn, benchmark_user("plain"), [document])
        row = conn.execute(
            "SELECT text_cipher, meta_cipher, embedding FROM memory_chunks JOIN memory_vectors USING (user_hash, id)"
        ).fetchall()
    assert [(text, meta) for text, meta, _ in row] == [(b"in the clear", b'{"n":1}')]
    assert (np.asarray(row[0][2].to_list()) == vector).all()


@pytest.mark.django_db(transaction=True)
def test_plain_tables_have_the_columns_of_the_real_ones_and_no_row_security() -> None:
    columns = (
        "SELECT attname, atttypid::regtype::text, attstorage FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attname"
    )
    with plain_tables() as conn:
        for table in ("memory_chunks", "memory_vectors"):
            plain = conn.execute(columns, [f"benchmark_plain.{table}"]).fetchall()
            assert plain == conn.execute(columns, [f"public.{table}"]).fetchall()
        security = conn.execute(
            "SELECT bool_or(relrowsecurity) FROM pg_class WHERE relnamespace = 'benchmark_plain'::regnamespace"
        ).fetchone()
    assert security == (False,)


@pytest.mark.django_db(transaction=True)
def test_plain_tables_are_dropped_after_an_error() -> None:
    with pytest.raises(psycopg.errors.DivisionByZero), plain_tables() as conn:
        conn.execute("SELECT 1/0")
    assert schemas() == []


@pytest.mark.django_db(transaction=True)
def test_users_without_keywords_have_none() -> None:
    document = Document("doc", "notes", (Chunk("apples and pears", np.eye(1, 384, dtype=np.float32)[0]),))
    user_id = benchmark_user("words")
    with throwaway_tenants([user_id, without_keywords(user_id)]):
        write_product(user_id, [document])
        write_without_keywords(user_id, [document])
        assert lexical(user_id) is not None
        assert lexical(without_keywords(user_id)) is None


@pytest.mark.django_db(transaction=True)
def test_users_without_macs_have_none() -> None:
    user_id, document = benchmark_user("macs"), Document("doc", "", (Chunk("apples", np.ones(384)),))
    with throwaway_tenants([user_id, without_macs(user_id)]):
        write_without_macs(user_id, [document])
        write_product(user_id, [document])
        for name, has in ((user_id, True), (without_macs(user_id), False)):
            with tenant_transaction(name):
                macs = [*MemoryVector.objects.values_list("vector_mac", flat=True), Tenant.objects.get().row_set]
                assert [mac is not None for mac in macs] == [has, has]


def lexical(user_id: str) -> object:
    with tenant_transaction(user_id):
        return MemoryVector.objects.values_list("lexical", flat=True).get()


@pytest.mark.django_db(transaction=True)
def test_full_text_search_finds_what_was_written() -> None:
    document = Document("doc", "notes", (Chunk("apples and pears", np.eye(1, 384, dtype=np.float32)[0]),))
    with plain_tables(full_text=True) as conn:
        write_plain(conn, benchmark_user("plain"), [document])
        found = conn.execute("SELECT doc_id FROM memory_chunks WHERE words @@ to_tsquery('english', 'apple')")
        assert found.fetchall() == [("doc",)]


def test_ratio_is_the_median_of_pairs() -> None:
    load = Load(rows=30, batch=10, tenants=1, words=5)
    row = summary(load, EVERYTHING, np.array([1.0, 1.0, 10.0]), np.array([0.5, 0.7, 9.0]))
    assert row["ratio"] == pytest.approx(0.7)
    assert row["rows_s"] == pytest.approx(30 / 12)
    other = {**row, "write path": NO_KEYWORDS, "ratio": 0.69}
    assert [target.ok for target in targets([{**row, "rows_s": 2500.0}, other])] == [True, False, True]
    assert [target.ok for target in targets([row, other])] == [True, False, False]


def test_arguments_must_be_positive() -> None:
    with pytest.raises(CommandError, match="at least 1"):
        call_command("benchmark_index", "--rows", "0")
