"""Isolation, asked of Postgres itself, as the application's role."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import DatabaseError, connection, connections, transaction
from psycopg_pool import AsyncConnectionPool

from memory import erasure
from memory.exceptions import InvalidUserId, OutsideTenantTransaction, SecondTenant, TenantNotBound
from memory.indexing import index_memory_chunk
from memory.models import MemoryChunk, MemoryVector, Tenant
from memory.operations import idempotency, queue
from memory.rls import bind_tenant, current_user_id, set_rls_context, tenant_transaction
from memory.security import hmac_user
from memory.tenancy.live_database import tenant_tables
from tests.factories import ALICE, BOB, recall, remember, texts, vector_of
from tests.memory.waiting import in_thread, wait_until_one_waits

TABLES = ["memory_chunks", "memory_operations", "memory_requests", "memory_terms", "memory_vectors", "tenants"]


def visible(table: str = "memory_chunks", using: str = "default") -> int:
    """Rows that a bare SELECT sees, without the ORM's own filter."""
    with connections[using].cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]


def setting(using: str = "default") -> str | None:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT current_setting('app.user_hash', true)")
        return cursor.fetchone()[0]


def execute(sql: str, *parameters: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount


@contextmanager
def pool_of_one() -> Iterator[str]:
    """An alias beside "default", to the same database, whose pool holds one connection."""
    settings_dict = {**connection.settings_dict, "OPTIONS": {**connection.settings_dict["OPTIONS"]}}
    settings_dict["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 1, "timeout": 2}
    wrapper = type(connections["default"])(settings_dict, alias="pool_of_one")
    connections["pool_of_one"] = wrapper
    try:
        yield "pool_of_one"
    finally:
        wrapper.close()
        wrapper.close_pool()
        del connections["pool_of_one"]


@pytest.fixture
def both(db: None) -> None:
    remember(ALICE, "alice", "Alice's diary")
    remember(BOB, "bob", "Bob's diary")
    for user_id in (ALICE, BOB):
        queue.accept(user_id=user_id, body={"text": "a memory"})
        idempotency.begin(user_id=user_id, key="key", asked="anything")
        with tenant_transaction(user_id):
            execute(
                "INSERT INTO memory_terms (user_hash, term, id, weight) SELECT user_hash, 1, id, 1 FROM memory_chunks"
            )


@pytest.mark.usefixtures("both")
class TestPolicy:
    def test_no_table_of_tenants_is_left_out_below(self) -> None:
        assert tenant_tables() == TABLES

    def test_the_suite_is_the_application(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user")
            assert cursor.fetchone() == ("memory_app", False, False)

    @pytest.mark.parametrize("table", TABLES)
    def test_without_context_nothing_is_visible(self, table: str) -> None:
        assert visible(table) == 0

    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("value", ["", " ", "%", "person:1", "0" * 63, "0" * 64, "' OR true --"])
    def test_an_empty_or_malformed_context_sees_nothing(self, table: str, value: str) -> None:
        with transaction.atomic():
            execute("SELECT set_config('app.user_hash', %s, true)", value)
            assert visible(table) == 0

    @pytest.mark.parametrize("table", TABLES)
    def test_each_sees_their_own_alone(self, table: str) -> None:
        for user_id in (ALICE, BOB):
            with tenant_transaction(user_id):
                assert visible(table) == 1

    def test_a_question_finds_ones_own_alone(self) -> None:
        assert texts(recall(BOB, "Alice's diary")) == ["Bob's diary"]
        assert texts(recall("person:3", "Alice's diary")) == []

    def test_insert_for_another_is_refused(self) -> None:
        columns = "user_hash, user_cipher, enc_key_id, hmac_key_id"
        with pytest.raises(DatabaseError, match="row-level security"), tenant_transaction(ALICE):
            execute(f"INSERT INTO tenants ({columns}) VALUES (%s, %s, '', '')", "0" * 64, b"x" * 40)

    def test_upsert_into_another_is_refused(self) -> None:
        columns = "user_hash, user_cipher, enc_key_id, hmac_key_id"
        with pytest.raises(DatabaseError, match="row-level security"), tenant_transaction(ALICE):
            execute(
                f"INSERT INTO tenants ({columns}) VALUES (%s, %s, '', '')"
                " ON CONFLICT (user_hash) DO UPDATE SET chunk_count = 99",
                hmac_user(BOB),
                b"x" * 40,
            )

    @pytest.mark.parametrize("table", TABLES)
    def test_giving_ones_row_to_another_is_refused(self, table: str) -> None:
        with pytest.raises(DatabaseError, match="row-level security"), tenant_transaction(ALICE):
            execute(f"UPDATE {table} SET user_hash = %s", hmac_user("person:3"))

    @pytest.mark.parametrize("table", TABLES)
    def test_update_and_delete_touch_nothing_of_another(self, table: str) -> None:
        with tenant_transaction(ALICE):
            assert execute(f"UPDATE {table} SET user_hash = user_hash WHERE user_hash = %s", hmac_user(BOB)) == 0
            assert execute(f"DELETE FROM {table} WHERE user_hash = %s", hmac_user(BOB)) == 0
        with tenant_transaction(BOB):
            assert visible(table) == 1

    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("statement", ["TRUNCATE {}", "ALTER TABLE {} DISABLE ROW LEVEL SECURITY", "DROP TABLE {}"])
    def test_the_application_may_not_reshape_a_table(self, table: str, statement: str) -> None:
        with pytest.raises(DatabaseError, match="permission denied|must be owner"), tenant_transaction(ALICE):
            execute(statement.format(table))

    def test_copy_from_is_refused_by_postgres(self) -> None:
        with pytest.raises(psycopg.Error, match="COPY FROM not supported"), tenant_transaction(ALICE):
            raw = connection.connection
            with psycopg.Cursor(raw) as cursor, cursor.copy("COPY memory_vectors FROM STDIN"):
                pass


@pytest.mark.usefixtures("both")
class TestDoor:
    def test_takes_the_bound_user(self) -> None:
        with bind_tenant(ALICE), tenant_transaction() as user_hash:
            assert user_hash == hmac_user(ALICE)
            assert [chunk.doc_id for chunk in MemoryChunk.objects.all()] == ["alice"]

    def test_needs_a_user(self) -> None:
        with pytest.raises(TenantNotBound), tenant_transaction():
            pass
        with pytest.raises(TenantNotBound):
            current_user_id()

    def test_binding_ends_with_its_block_even_after_an_exception(self) -> None:
        with pytest.raises(ValueError, match="inside"), bind_tenant(ALICE):
            raise ValueError("inside")
        with pytest.raises(TenantNotBound):
            current_user_id()

    def test_binding_refuses_what_is_no_user(self) -> None:
        with pytest.raises(InvalidUserId), bind_tenant(""):
            pass

    def test_a_second_tenant_on_one_connection_raises(self) -> None:
        with tenant_transaction(ALICE):
            with pytest.raises(SecondTenant), tenant_transaction(BOB):
                pass
            assert visible() == 1

    def test_a_nested_door_of_the_same_user_is_a_savepoint(self) -> None:
        with tenant_transaction(ALICE):
            with pytest.raises(ValueError, match="undo"), tenant_transaction(ALICE):
                MemoryChunk.objects.all().delete()
                raise ValueError("undo")
            assert visible() == 1

    def test_the_setting_is_gone_after_the_door_closes(self) -> None:
        with tenant_transaction(ALICE):
            assert setting() == hmac_user(ALICE)
        assert not setting() and visible() == 0

    def test_the_setting_is_gone_after_an_exception(self) -> None:
        with pytest.raises(ValueError, match="inside"), tenant_transaction(ALICE):
            raise ValueError("inside")
        assert not setting() and visible() == 0

    def test_the_setting_is_gone_inside_the_block_it_joined(self) -> None:
        with transaction.atomic():
            with tenant_transaction(ALICE):
                assert visible() == 1
            assert not setting() and visible() == 0
            with tenant_transaction(BOB):
                assert visible() == 1

    def test_the_setting_survives_a_rollback_to_an_inner_savepoint(self) -> None:
        with tenant_transaction(ALICE):
            with pytest.raises(ValueError, match="inside"), transaction.atomic():
                raise ValueError("inside")
            assert setting() == hmac_user(ALICE) and visible() == 1

    @pytest.mark.parametrize(
        "work",
        [
            lambda: MemoryChunk.objects.count(),
            lambda: list(MemoryVector.objects.all()),
            lambda: Tenant.objects.first(),
            lambda: MemoryChunk._base_manager.get(doc_id="alice"),
            lambda: MemoryChunk.objects.create(doc_id="d", chunk_index=0),
            lambda: MemoryChunk(user_hash="0" * 64).save(),
            lambda: MemoryChunk(user_hash="0" * 64).delete(),
            lambda: MemoryChunk.objects.bulk_create([]),
            lambda: MemoryChunk.objects.update(source="x"),
        ],
    )
    def test_every_path_of_the_orm_raises_outside_it(self, work: Callable[[], Any]) -> None:
        with pytest.raises(OutsideTenantTransaction):
            work()

    def test_a_queryset_of_one_tenant_finds_nothing_in_anothers_door(self) -> None:
        with tenant_transaction(ALICE):
            queryset = MemoryChunk.objects.all()
            instance = MemoryChunk.objects.get()
        with pytest.raises(OutsideTenantTransaction):
            list(queryset)
        with pytest.raises(OutsideTenantTransaction):
            instance.refresh_from_db()
        with tenant_transaction(BOB):
            assert list(queryset) == []

    @pytest.mark.parametrize("act", [lambda row: row.save(), lambda row: row.delete()])
    def test_a_row_of_another_is_not_saved_or_deleted(self, act: Callable[[Any], Any]) -> None:
        with tenant_transaction(ALICE):
            row = MemoryChunk.objects.get()
        with pytest.raises(SecondTenant), tenant_transaction(BOB):
            act(row)

    def test_raw_is_banned(self) -> None:
        with tenant_transaction(ALICE), pytest.raises(NotImplementedError):
            MemoryChunk.objects.raw("SELECT * FROM memory_chunks")

    def test_a_setting_changed_under_an_open_cursor_shows_nothing(self) -> None:
        """The constant filter closes what the policy alone would leave open."""
        with tenant_transaction(ALICE):
            queryset = MemoryChunk.objects.all()
            execute("SELECT set_config('app.user_hash', %s, true)", hmac_user(BOB))
            assert list(queryset) == []

    def test_the_filter_is_a_constant_in_the_statement(self) -> None:
        with tenant_transaction(ALICE) as user_hash:
            assert user_hash in str(MemoryChunk.objects.all().query)


@pytest.mark.django_db(transaction=True)
class TestReuse:
    def test_a_pooled_connection_carries_nothing_over(self) -> None:
        """A pool of one hands the same connection to the next user."""
        remember(ALICE, "alice", "Alice's diary")
        backends = set()
        with pool_of_one() as alias:
            for user_id in (ALICE, None, BOB, None):
                connections[alias].close()
                with transaction.atomic(using=alias):
                    assert not setting(alias) and visible(using=alias) == 0
                if user_id:
                    with tenant_transaction(user_id, using=alias):
                        assert setting(alias) == hmac_user(user_id)
                        assert visible(using=alias) == (1 if user_id == ALICE else 0)
                with connections[alias].cursor() as cursor:
                    backends.add(cursor.execute("SELECT pg_backend_pid()").fetchone()[0])
        assert len(backends) == 1

    def test_a_committed_door_leaves_an_empty_setting_not_the_old_one(self) -> None:
        with tenant_transaction(ALICE):
            pass
        assert setting() == ""

    def test_on_commit_callbacks_run_outside_the_door(self) -> None:
        seen = []
        with tenant_transaction(ALICE):
            transaction.on_commit(lambda: seen.append(setting()))
        assert seen == [""]


def in_async(work: Callable[[], Awaitable[Any]]) -> Any:
    # async_to_sync, not asyncio.run: the latter leaves connections open behind the test.
    return async_to_sync(work)()


async def connect() -> psycopg.AsyncConnection[Any]:
    return await connections["default"].connect_async()  # type: ignore[attr-defined]


async def count(conn: psycopg.AsyncConnection[Any]) -> int:
    cursor = await conn.execute("SELECT count(*) FROM memory_chunks")
    row = await cursor.fetchone()
    assert row
    return int(row[0])


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("readable_names")
class TestAsyncContext:
    @pytest.fixture(autouse=True)
    def _rows(self, transactional_db: None) -> None:
        remember(ALICE, "alice", "Alice's diary")
        remember(BOB, "bob", "Bob's diary")
        connection.close()

    def test_shows_one_users_rows_and_ends(self) -> None:
        async def work() -> tuple[int, int, int]:
            async with await connect() as conn:
                async with set_rls_context(conn, ALICE) as user_hash:
                    assert user_hash == hmac_user(ALICE)
                    inside = await count(conn)
                async with conn.transaction():
                    outside = await count(conn)
                async with set_rls_context(conn, "person:3"):
                    stranger = await count(conn)
            return inside, outside, stranger

        assert in_async(work) == (1, 0, 0)

    def test_joins_an_open_transaction_and_takes_the_setting_back(self) -> None:
        async def work() -> tuple[int, int]:
            async with await connect() as conn, conn.transaction():
                async with set_rls_context(conn, ALICE):
                    inside = await count(conn)
                return inside, await count(conn)

        assert in_async(work) == (1, 0)

    def test_an_exception_rolls_back_and_ends_it(self) -> None:
        async def work() -> tuple[int, int]:
            async with await connect() as conn:
                with pytest.raises(ValueError, match="inside"):
                    async with set_rls_context(conn, ALICE):
                        await conn.execute("DELETE FROM memory_chunks")
                        raise ValueError("inside")
                outside = await count(conn)
                await conn.rollback()
                async with set_rls_context(conn, ALICE):
                    return outside, await count(conn)

        assert in_async(work) == (0, 1)

    def test_a_second_tenant_on_the_connection_raises(self) -> None:
        async def work() -> int:
            async with await connect() as conn, set_rls_context(conn, ALICE):
                with pytest.raises(SecondTenant):
                    async with set_rls_context(conn, BOB):
                        pass
                async with set_rls_context(conn, ALICE):
                    return await count(conn)

        assert in_async(work) == 1

    def test_a_second_tenant_in_a_task_sharing_the_connection_raises(self) -> None:
        """Both tasks enter while the first one still waits for its BEGIN."""
        seen: list[list[str]] = []

        async def one(conn: psycopg.AsyncConnection[Any], user_id: str) -> None:
            async with set_rls_context(conn, user_id):
                await asyncio.sleep(0.01)
                cursor = await conn.execute("SELECT doc_id FROM memory_chunks")
                seen.append([doc_id for (doc_id,) in await cursor.fetchall()])

        async def work() -> list[BaseException | None]:
            async with await connect() as conn:
                return await asyncio.gather(one(conn, ALICE), one(conn, BOB), return_exceptions=True)

        first, second = in_async(work)
        assert seen == [["alice"]]
        assert first is None and isinstance(second, SecondTenant)

    def test_autocommit_connections_work_too(self) -> None:
        async def work() -> tuple[int, int]:
            async with await connect() as conn:
                await conn.set_autocommit(True)
                async with set_rls_context(conn, ALICE):
                    inside = await count(conn)
                return inside, await count(conn)

        assert in_async(work) == (1, 0)

    def test_interleaved_requests_on_a_pool_of_two(self) -> None:
        """Fifty at once, each waiting in the middle: every one sees their own row and nothing else."""

        async def one(pool: AsyncConnectionPool[Any], user_id: str) -> list[str]:
            async with pool.connection() as conn, set_rls_context(conn, user_id):
                await asyncio.sleep(0)
                cursor = await conn.execute("SELECT doc_id, pg_sleep(0.002) FROM memory_chunks")
                return [doc_id for doc_id, _ in await cursor.fetchall()]

        async def work() -> list[list[str]]:
            parameters = connections["default"].parameters_of("app")  # type: ignore[attr-defined]
            async with AsyncConnectionPool(kwargs=parameters, min_size=2, max_size=2, open=False) as pool:
                return await asyncio.gather(*(one(pool, (ALICE, BOB)[number % 2]) for number in range(50)))

        assert in_async(work) == [[("alice", "bob")[number % 2]] for number in range(50)]

    def test_interleaved_tasks_through_the_django_door(self) -> None:
        def one(user_id: str) -> list[str]:
            with bind_tenant(user_id), tenant_transaction():
                return [chunk.doc_id for chunk in MemoryChunk.objects.all()]

        async def work() -> list[list[str]]:
            tasks = [sync_to_async(one)((ALICE, BOB)[number % 2]) for number in range(20)]
            return await asyncio.gather(*tasks)

        assert in_async(work) == [[("alice", "bob")[number % 2]] for number in range(20)]

    def test_bound_users_of_concurrent_tasks_stay_apart(self) -> None:
        async def one(user_id: str) -> bool:
            with bind_tenant(user_id):
                await asyncio.sleep(0)
                return current_user_id() == user_id

        async def work() -> list[bool]:
            return await asyncio.gather(*(one(f"person:{number}") for number in range(20)))

        assert all(in_async(work))

    def test_index_memory_chunk_writes_a_row_that_the_api_finds(self) -> None:
        async def work() -> Any:
            async with await connect() as conn:
                first = await index_memory_chunk(conn, ALICE, "new", "chat", "old text", vector_of("old text"), {})
                await conn.commit()
                again = await index_memory_chunk(
                    conn, ALICE, "new", "chat", "new text", vector_of("new text"), {"a": 1}
                )
                await conn.commit()
                return first, again

        first, again = in_async(work)
        assert first != again
        (match, *_) = recall(ALICE, "new text", doc_id="new")
        assert (match.id, match.text, match.metadata) == (again, "new text", {"a": 1})
        with tenant_transaction(ALICE):
            assert Tenant.objects.get().chunk_count == 3 == visible()

    def test_a_write_that_waited_for_an_erasure_makes_the_tenant_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        erasing, write_waits = threading.Event(), threading.Event()
        delete_all = erasure._delete_all

        def delete_once_the_write_waits(*args: Any) -> int:
            erasing.set()
            write_waits.wait(10)
            return delete_all(*args)

        async def write() -> None:
            async with await connect() as conn:
                await index_memory_chunk(conn, ALICE, "new", "chat", "new text", vector_of("new text"), {})
                await conn.commit()

        monkeypatch.setattr(erasure, "_delete_all", delete_once_the_write_waits)
        with ThreadPoolExecutor() as threads:
            erased = threads.submit(in_thread, erasure.erase_user, user_id=ALICE)
            assert erasing.wait(10)
            written = threads.submit(in_async, write)
            wait_until_one_waits()
            write_waits.set()
            assert (erased.result(10).deleted["tenants"], written.result(10)) == (1, None)
        with tenant_transaction(ALICE):
            assert (visible(), Tenant.objects.get().chunk_count) == (1, 1)
