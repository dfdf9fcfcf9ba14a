"""Whoever may send any statement as memory_app, without naming the other user, sees and changes nothing of hers."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.attacks import sql
from tests.attacks.population import Population, as_text, connected, foreign_marks
from tests.attacks.sql import SITUATIONS, Situation
from tests.attacks.tally import tried
from tests.factories import ALICE, BOB

pytestmark = pytest.mark.django_db
INSUFFICIENT_PRIVILEGE = psycopg.errors.InsufficientPrivilege.sqlstate


@pytest.fixture
def conn(population: Population) -> Iterator[psycopg.Connection[Any]]:
    with connected() as conn:
        yield conn
        conn.rollback()


def enter(conn: psycopg.Connection[Any], situation: Situation, names: dict[str, str]) -> None:
    """Begin the transaction that attacks are sent in, one after the other."""
    conn.execute("; ".join(["BEGIN", *situation.before, "SAVEPOINT attack"]).format(**names))


def answer(conn: psycopg.Connection[Any], statement: str) -> tuple[str, str]:
    """All that Postgres answers to one attack, and the error's code if it is one; what it did is undone."""
    conn.execute("ROLLBACK TO SAVEPOINT attack")
    try:
        with conn.cursor() as cursor:
            if statement.startswith("COPY"):
                with cursor.copy(statement) as copy:
                    return as_text(copy), ""
            cursor.execute(statement)
            return as_text(cursor.fetchall() if cursor.description else []), ""
    except psycopg.Error as error:
        details = (error.diag.message_primary, error.diag.message_detail, error.diag.message_hint, error.diag.context)
        return " ".join(filter(None, (str(error), *details))), error.sqlstate or "?"


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: f"{situation.viewer}: {situation.name}")
def test_every_way_to_count_rows_counts_ones_own(
    conn: psycopg.Connection[Any], population: Population, situation: Situation
) -> None:
    names = sql.names(population[ALICE].user_hash, population[BOB].user_hash)
    off = any("row_security = off" in statement for statement in situation.before)
    enter(conn, situation, names)
    for table in sql.tables():
        expected = population[situation.viewer].rows[table] if situation.viewer else 0
        for template in sql.COUNTING:
            statement = template.format(table=table, **names)
            assert answer(conn, statement)[off] == (INSUFFICIENT_PRIVILEGE if off else str(expected)), statement
            tried("statements as memory_app that count, change or lock rows")


@pytest.mark.parametrize(
    "situation",
    [each for each in SITUATIONS if each.name in ("no setting", "own", "foreign and reset")],
    ids=lambda situation: situation.name,
)
def test_no_statement_says_anything_of_somebody_elses(
    conn: psycopg.Connection[Any], population: Population, situation: Situation
) -> None:
    names = sql.names(population[ALICE].user_hash, population[BOB].user_hash)
    notices: list[str] = []
    conn.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    enter(conn, situation, names)
    for template in sql.SPEAKING:
        for table in sql.tables():
            statement = template.format(table=table, **names)
            said, error = answer(conn, statement)
            said = " ".join([said, *notices]).replace(population[BOB].user_hash, "", statement.count(names["bob"]))
            assert not foreign_marks(said, population, situation.viewer), statement
            refused = error or "no privileges were granted" in said
            assert refused or not template.startswith(sql.REFUSED_IF_IT_BEGINS), f"allowed: {statement}"
            tried("statements as memory_app that could show a value, or widen a right")
            notices.clear()


@pytest.mark.parametrize("statement", sql.ON_A_PARTITION)
def test_a_partition_is_closed_to_whoever_addresses_it(
    conn: psycopg.Connection[Any], population: Population, statement: str
) -> None:
    enter(conn, SITUATIONS[0], names := sql.names(population[ALICE].user_hash, population[BOB].user_hash))
    found = conn.execute(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhrelid::regclass::text LIKE '%\\_p_'"
    )
    for (partition,) in found.fetchall():
        said, error = answer(conn, statement.format(table=partition, **names))
        assert error == INSUFFICIENT_PRIVILEGE, said
        tried("statements that address a partition by its name")
