"""Users at the same time, through threads, tasks and one connection of a pooler: each sees their own rows alone."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from psycopg_pool import AsyncConnectionPool

from memory.exceptions import SealedMemoryError
from memory.models import MemoryChunk
from memory.rls import bind_tenant, set_rls_context, tenant_transaction
from tests.attacks.population import CAROL, Population, as_text, foreign_marks
from tests.attacks.tally import tried
from tests.factories import ALICE, BOB
from tests.memory.waiting import in_thread
from tests.pgbouncer import PGBOUNCER, running_pgbouncer

pytestmark = pytest.mark.django_db
USERS = (ALICE, BOB, CAROL)
SQL = "SELECT t.*, t::text FROM memory_chunks t"


def by_django(user_id: str) -> str:
    with tenant_transaction(user_id), connections["default"].cursor() as cursor:
        cursor.execute(SQL)
        return as_text(cursor.fetchall())


def by_the_orm(user_id: str) -> str:
    with bind_tenant(user_id), tenant_transaction():
        return as_text((row.user_hash, row.doc_id, row.text) for row in MemoryChunk.objects.all())


def that_fails(user_id: str) -> str:
    """A read, an error in the middle, and the door closed by it."""
    shown = ""
    with suppress(ZeroDivisionError), tenant_transaction(user_id), connections["default"].cursor() as cursor:
        cursor.execute(SQL)
        shown = as_text(cursor.fetchall())
        raise ZeroDivisionError
    return shown


WAYS = (by_django, by_the_orm, that_fails)


def assert_own(population: Population, user_id: str, shown: str) -> None:
    assert population[user_id].user_hash in shown
    assert not foreign_marks(shown, population, user_id)


def test_threads_and_tasks_mixed(population: Population) -> None:
    """Eight threads, each with tasks of its own, whose synchronous work shares the threads of others."""
    drawn = np.random.default_rng(7)

    async def task(user_id: str, way: Any) -> tuple[str, str]:
        await asyncio.sleep(0)
        with bind_tenant(user_id):
            return user_id, await sync_to_async(in_thread, thread_sensitive=False)(way, user_id=user_id)

    async def tasks(work: list[tuple[str, Any]]) -> list[tuple[str, str]]:
        return await asyncio.gather(*(task(*each) for each in work))

    def thread(work: list[tuple[str, Any]]) -> list[tuple[str, str]]:
        try:
            direct = [(user_id, way(user_id)) for user_id, way in work]
            return direct + async_to_sync(tasks)(work)
        finally:
            connections.close_all()

    plans = [[(USERS[a], WAYS[b]) for a, b in drawn.integers(0, 3, (15, 2))] for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(thread, plans):
            for user_id, shown in found:
                assert_own(population, user_id, shown)
                tried("reads of three users through threads and tasks at once")


def test_tasks_that_share_a_connection_never_share_a_user(population: Population) -> None:
    """Whoever comes second is refused or waits; nobody reads in another's context."""

    async def one(conn: psycopg.AsyncConnection[Any], user_id: str, pause: float) -> tuple[str, str]:
        with suppress(SealedMemoryError, psycopg.Error):
            async with set_rls_context(conn, user_id):
                await asyncio.sleep(pause)
                cursor = await conn.execute(SQL)
                return user_id, as_text(await cursor.fetchall())
        return user_id, ""

    async def work() -> list[tuple[str, str]]:
        drawn, seen = np.random.default_rng(8), []
        for _ in range(20):
            async with await connections["default"].connect_async() as conn:  # type: ignore[attr-defined]
                pairs = [(USERS[a], (0, 0, 0.001)[b]) for a, b in drawn.integers(0, 3, (6, 2))]
                seen += await asyncio.gather(*(one(conn, *pair) for pair in pairs))
        return seen

    seen = async_to_sync(work)()
    assert any(shown for _, shown in seen)
    for user_id, shown in seen:
        assert not foreign_marks(shown, population, user_id)
        tried("tasks of three users that share one connection")


@pytest.fixture(scope="module")
def pooled(population: Population, make_reachable: Any) -> Iterator[dict[str, Any]]:
    with running_pgbouncer(make_reachable()) as parameters:
        yield parameters


@pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed.")
class TestBehindPgBouncer:
    """In transaction mode, with one connection to the server for everybody."""

    def test_users_in_turns_on_one_backend(self, population: Population, pooled: dict[str, Any]) -> None:
        async def one(pool: AsyncConnectionPool[Any], number: int) -> tuple[str, str, int]:
            user_id = USERS[number % 3]
            async with pool.connection() as conn, set_rls_context(conn, user_id):
                cursor = await conn.execute(SQL)
                shown = as_text(await cursor.fetchall())
                if number % 5 == 0:
                    with suppress(psycopg.Error):
                        await conn.execute("SELECT 1/0")
                    return user_id, shown, 0
                cursor = await conn.execute("SELECT pg_backend_pid()")
                (pid,) = await cursor.fetchone() or (0,)
                return user_id, shown, pid

        async def attempt(pool: AsyncConnectionPool[Any], number: int) -> tuple[str, str, int]:
            try:
                return await one(pool, number)
            except psycopg.Error:
                return USERS[number % 3], "", 0

        async def work() -> list[tuple[str, str, int]]:
            async with AsyncConnectionPool(kwargs=pooled, min_size=4, max_size=4, open=False) as pool:
                return await asyncio.gather(*(attempt(pool, number) for number in range(120)))

        seen = async_to_sync(work)()
        assert len({pid for _, _, pid in seen if pid}) == 1
        assert sum(bool(shown) for _, shown, _ in seen) >= 90
        for user_id, shown, _ in seen:
            assert not foreign_marks(shown, population, user_id)
            tried("transactions of three users through PgBouncer's one connection")

    def test_what_one_client_leaves_on_the_backend_shows_the_next_nothing(
        self, population: Population, pooled: dict[str, Any]
    ) -> None:
        async def look(user_id: str | None) -> str:
            async with await psycopg.AsyncConnection.connect(**pooled) as conn:
                if user_id is None:
                    await conn.set_autocommit(True)
                    await conn.execute(f"SET app.user_hash = '{population[BOB].user_hash}'")
                    return ""
                async with set_rls_context(conn, user_id):
                    cursor = await conn.execute(SQL)
                    return as_text(await cursor.fetchall())

        for _ in range(10):
            async_to_sync(look)(None)
            assert_own(population, ALICE, async_to_sync(look)(ALICE))
            tried("settings of a session left behind PgBouncer")
