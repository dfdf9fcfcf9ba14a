"""One backend, one user after the other: whatever the first one leaves behind, the next sees their own rows alone."""

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, InterfaceError, connections, transaction
from psycopg_pool import AsyncConnectionPool

from memory.models import MemoryChunk
from memory.rls import set_rls_context, tenant_transaction
from memory.tenancy.cursors import pipeline, sending
from memory.tenancy.live_database import tenant_tables
from tests.attacks.population import Population, as_text, connected, foreign_marks, pool_of_one
from tests.attacks.tally import tried
from tests.factories import ALICE, BOB

pytestmark = pytest.mark.django_db

# What a user's transaction, or somebody who smuggles SQL into it, may do last. {own}, {foreign}: hashes of Bob, Alice.
LEFT_BEHIND = {
    "a setting of the session": ["SET app.user_hash = '{own}'"],
    "a setting of the session by set_config": ["SELECT set_config('app.user_hash', '{own}', false)"],
    "a default of the session's characteristics": ["SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"],
    "a role": ["SET ROLE memory_app"],
    "another search path": ["SET search_path = pg_catalog, public"],
    "row_security off": ["SET row_security = off"],
    "a prepared statement": ["PREPARE leak AS SELECT * FROM memory_chunks"],
    "a statement prepared with the foreign hash": [
        "PREPARE leak AS SELECT * FROM memory_chunks WHERE user_hash = '{own}'",
        "EXECUTE leak",
    ],
    "a cursor": ["DECLARE leak CURSOR FOR SELECT * FROM memory_chunks"],
    "a session lock": ["SELECT pg_advisory_lock(1)"],
    "a listener": ["LISTEN leak"],
    "everything discarded": ["DISCARD PLANS", "DISCARD SEQUENCES"],
    "an error": ["SELECT 1/0"],
    "a time out": ["SET LOCAL statement_timeout = 1", "SELECT pg_sleep(1)"],
    "a lock that is not granted": ["LOCK TABLE pg_authid"],
    "a savepoint that is left open": ["SAVEPOINT a", "SAVEPOINT b"],
    "a failed savepoint": ["SAVEPOINT a", "SELECT 1/0"],
    "an unfinished copy": ["COPY (SELECT * FROM memory_chunks) TO STDOUT"],
    "a transaction committed within": ["COMMIT"],
    "a transaction committed, and another begun": ["COMMIT", "BEGIN"],
    "a transaction rolled back within": ["ROLLBACK"],
    "a setting of the session, committed within": ["COMMIT", "SET app.user_hash = '{own}'", "BEGIN"],
}
REFUSED = "would be affected by row-level security"


def looks(alias: str, user_id: str) -> str:
    """Everything that a user's door shows of every tenant table, by SQL without a filter."""
    shown = []
    with tenant_transaction(user_id, using=alias), connections[alias].cursor() as cursor:
        for table in tenant_tables():
            cursor.execute(f"SELECT t.*, t::text FROM {table} t")
            shown += cursor.fetchall()
    return as_text(shown)


def backend(alias: str) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def leave(alias: str, population: Population, statements: list[str]) -> None:
    """A door of Bob's, in which these statements are sent past Django; whatever they raise is swallowed."""
    with suppress(DatabaseError, InterfaceError, psycopg.Error), tenant_transaction(BOB, using=alias):
        raw = connections[alias].connection
        for statement in statements:
            with psycopg.Cursor(raw) as cursor:
                cursor.execute(statement.format(own=population[BOB].user_hash))


@pytest.mark.parametrize("left", LEFT_BEHIND)
def test_the_next_user_of_a_backend_sees_their_own_alone(population: Population, left: str) -> None:
    with pool_of_one() as alias:
        first = backend(alias)
        for _ in range(3):
            leave(alias, population, LEFT_BEHIND[left])
            connections[alias].close()
            shown = ""
            with pytest.raises(DatabaseError, match=REFUSED) if left == "row_security off" else nullcontext():
                shown = looks(alias, ALICE)
                assert population[ALICE].user_hash in shown
            assert not foreign_marks(shown, population, ALICE)
            connections[alias].close()
            tried("ways to leave a backend to the next user")
        assert left == "an unfinished copy" or backend(alias) == first


def test_traffic_leaves_nothing_on_a_backend_but_nameless_statements(population: Population) -> None:
    with pool_of_one() as alias:
        for user_id in (ALICE, BOB, ALICE):
            with tenant_transaction(user_id, using=alias), sending(alias) as send:
                send(
                    "SELECT doc_id FROM memory_chunks WHERE user_hash = %s", [population[user_id].user_hash]
                ).fetchall()
                list(MemoryChunk.objects.db_manager(alias).all())
                list(MemoryChunk.objects.db_manager(alias).iterator())
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT current_setting('app.user_hash', true)")
            assert cursor.fetchone() == ("",)
            for leftovers in ("pg_cursors WHERE is_holdable", "pg_locks WHERE locktype = 'advisory'"):
                cursor.execute(f"SELECT * FROM {leftovers}")
                assert cursor.fetchall() == []
            cursor.execute("SELECT statement FROM pg_prepared_statements")
            prepared = as_text(cursor.fetchall())
        assert prepared and not foreign_marks(prepared, population, None)


class TestPreparedStatements:
    @pytest.mark.parametrize("mode", ["auto", "force_generic_plan", "force_custom_plan"])
    def test_a_plan_made_for_one_user_shows_the_next_their_own(self, population: Population, mode: str) -> None:
        with connected() as conn:
            conn.execute(f"SET plan_cache_mode = {mode}")
            for table in tenant_tables():
                conn.execute(f"PREPARE p_{table} AS SELECT t.*, t::text FROM {table} t")
            for number in range(12):
                user_id = (ALICE, BOB, None)[number % 3]
                for table in tenant_tables():
                    with conn.transaction():
                        if user_id:
                            conn.execute(f"SET LOCAL app.user_hash = '{population[user_id].user_hash}'")
                        shown = conn.execute(f"EXECUTE p_{table}").fetchall()
                    assert len(shown) == (population[user_id].rows[table] if user_id else 0)
                    assert not foreign_marks(as_text(shown), population, user_id)
                    tried("executions of a statement that another user prepared")


class TestCursors:
    def test_a_setting_changed_under_an_open_cursor_of_the_orm_shows_nothing(self, population: Population) -> None:
        with tenant_transaction(ALICE), connections["default"].cursor() as cursor:
            rows = MemoryChunk.objects.order_by("id").iterator(chunk_size=1)
            seen = [next(rows)]
            cursor.execute(f"SET LOCAL app.user_hash = '{population[BOB].user_hash}'")
            seen += rows
            tried("settings changed under an open cursor")
        assert {row.user_hash for row in seen} == {population[ALICE].user_hash}

    def test_a_cursor_that_outlives_its_transaction_is_never_opened(self, population: Population) -> None:
        """WITH HOLD would keep one user's rows on the backend for the next one: see what it would do."""
        with connected() as conn:
            with conn.transaction():
                conn.execute(f"SET LOCAL app.user_hash = '{population[BOB].user_hash}'")
                conn.execute("DECLARE leak CURSOR WITH HOLD FOR SELECT user_hash FROM memory_chunks")
            assert foreign_marks(as_text(conn.execute("FETCH ALL FROM leak").fetchall()), population, ALICE)
        with pytest.raises(DatabaseError), transaction.atomic(), connections["default"].cursor() as cursor:
            cursor.execute("FETCH ALL FROM leak")


class TestStoppedInTheMiddle:
    @pytest.mark.parametrize("how", ["cancelled", "terminated", "timed out", "cut off"])
    @pytest.mark.parametrize("where", ["in a statement", "in a pipeline", "in a savepoint"])
    def test_the_next_user_sees_their_own_alone(self, population: Population, how: str, where: str) -> None:
        with pool_of_one() as alias:
            for _ in range(2):
                with suppress(DatabaseError, InterfaceError, psycopg.Error), stopped(alias, how, where):
                    pass
                connections[alias].close()
                shown = looks(alias, ALICE)
                assert population[ALICE].user_hash in shown
                assert not foreign_marks(shown, population, ALICE)
                connections[alias].close()
                tried("statements cancelled, terminated, timed out or cut off, then another user")


@contextmanager
def stopped(alias: str, how: str, where: str) -> Iterator[None]:
    """A door of Bob's in which a statement that would take a minute is stopped."""
    piped = pipeline(alias) if where == "in a pipeline" else nullcontext()
    with tenant_transaction(BOB, using=alias), piped:
        raw = connections[alias].connection
        raw.execute("SET LOCAL client_connection_check_interval = 10")
        raw.execute("DELETE FROM memory_chunks")
        if where == "in a savepoint":
            raw.execute("SAVEPOINT a")
        if how == "timed out":
            raw.execute("SET LOCAL statement_timeout = 100")
        stop = {"cancelled": raw.cancel_safe, "terminated": lambda: terminate(raw), "cut off": lambda: cut_off(raw)}
        stopper = threading.Thread(target=once_it_sleeps, args=(raw.info.backend_pid, stop.get(how, lambda: None)))
        stopper.start()
        try:
            raw.execute("SELECT pg_sleep(60)").fetchall()
        finally:
            stopper.join()
        yield


def once_it_sleeps(pid: int, act: Callable[[], Any]) -> None:
    """Act when the backend is seen asleep, or has come to its end."""
    with connected() as conn:
        for _ in range(500):
            row = conn.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
            if row is None or row[0] == "PgSleep":
                break
            conn.execute("SELECT pg_sleep(0.01)")
        act()


def terminate(raw: psycopg.Connection[Any]) -> None:
    with connected() as conn:
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", [raw.info.backend_pid])


def cut_off(raw: psycopg.Connection[Any]) -> None:
    with socket.socket(fileno=os.dup(raw.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


class TestPipelines:
    @pytest.mark.parametrize(
        "broken", ["SELECT 1/0", "no sql", "SELECT 1; SELECT 2", "COMMIT", "ROLLBACK", "SELECT pg_sleep('x')"]
    )
    def test_one_that_fails_midway_leaves_nothing(self, population: Population, broken: str) -> None:
        with pool_of_one() as alias:
            for failing, next_one in ((BOB, ALICE), (ALICE, BOB)):
                with (
                    suppress(DatabaseError, psycopg.Error),
                    tenant_transaction(failing, using=alias),
                    pipeline(alias),
                    sending(alias) as send,
                ):
                    for statement in ("SELECT * FROM memory_chunks", broken, "SELECT * FROM memory_chunks"):
                        send(statement)
                connections[alias].close()
                assert not foreign_marks(looks(alias, next_one), population, next_one)
                connections[alias].close()
                tried("pipelines that fail midway, then another user")

    def test_async_ones_too(self, population: Population) -> None:
        async def one(pool: AsyncConnectionPool[Any], number: int) -> str:
            user_id = (ALICE, BOB)[number % 2]
            with suppress(psycopg.Error):
                async with pool.connection() as conn, conn.pipeline(), set_rls_context(conn, user_id):
                    first = await conn.execute("SELECT t.*, t::text FROM memory_chunks t")
                    if number % 3 == 0:
                        await conn.execute("SELECT 1/0")
                    return as_text(await first.fetchall())
            return ""

        async def work() -> list[str]:
            parameters = connections["default"].parameters_of("app")  # type: ignore[attr-defined]
            async with AsyncConnectionPool(kwargs=parameters, min_size=2, max_size=2, open=False) as pool:
                return await asyncio.gather(*(one(pool, number) for number in range(60)))

        shown = in_async(work)
        for number, text in enumerate(shown):
            assert not foreign_marks(text, population, (ALICE, BOB)[number % 2])
            assert bool(text) == (number % 3 != 0)
            tried("pipelines of two users interleaved on two connections, a third of them failing")


def in_async(work: Callable[[], Awaitable[Any]]) -> Any:
    return async_to_sync(work)()
