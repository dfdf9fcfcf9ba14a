"""Work is repeated while the database is away, and for no other error of it."""

from collections.abc import Callable

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from database import embedded_postgres
from keys import retry_while_away as module
from keys.retry_while_away import retry_while_away

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.0)


def failing_once(fail: Callable[[], object]) -> tuple[Callable[[], int], list[int]]:
    """Work that fails the first time, and how often it was done."""
    tries: list[int] = []

    def work() -> int:
        tries.append(1)
        if len(tries) == 1:
            fail()
        return len(tries)

    return work, tries


def raised_by_postgres(code: str) -> None:
    """As a statement fails with this SQLSTATE."""
    with connection.cursor() as cursor:
        cursor.execute(f"DO $$ BEGIN RAISE EXCEPTION 'as asked' USING ERRCODE = '{code}'; END $$")


@pytest.mark.parametrize("code", ["57P01", "57P02", "57P03", "08006"])
def test_a_lost_connection_is_waited_for(code: str) -> None:
    work, tries = failing_once(lambda: raised_by_postgres(code))
    assert retry_while_away(work) == 2


@pytest.mark.parametrize(
    "code",
    ["40P01", "40001", "55P03", "53100", "57014"],
    ids=["deadlock", "serialization", "lock timeout", "disk full", "statement timeout"],
)
def test_a_database_that_is_there_is_not(code: str) -> None:
    work, tries = failing_once(lambda: raised_by_postgres(code))
    with pytest.raises(OperationalError):
        retry_while_away(work)
    assert len(tries) == 1


def test_a_connection_that_was_cut_is_made_again() -> None:
    def cut() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    work, tries = failing_once(cut)
    assert retry_while_away(work) == 2


def test_a_server_that_does_not_answer_is_waited_for(cluster_dir: str) -> None:
    def nobody_listens() -> None:
        psycopg.connect("host=127.0.0.1 port=1 connect_timeout=1")

    work, tries = failing_once(nobody_listens)
    assert retry_while_away(work) == 2
    assert embedded_postgres.is_running(cluster_dir)


def test_inside_a_transaction_nothing_is_repeated() -> None:
    work, tries = failing_once(lambda: raised_by_postgres("57P01"))
    with pytest.raises(OperationalError), transaction.atomic():
        retry_while_away(work)
    assert len(tries) == 1
