"""Doors of one connection: they nest, they are left in order, and nobody ever reads under another user's name."""

import asyncio
import copy
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, connection, connections, transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from memory.exceptions import DoorOutOfOrder, SealedMemoryError, SecondTenant
from memory.models import MemoryChunk
from memory.rls import across_user_hashes, set_rls_context, tenant_transaction, tenant_transaction_by_hash
from memory.security import hmac_user
from memory.tenancy.cursors import sending
from tests.factories import ALICE, BOB, remember

CAROL = "person:3"
OWN = {ALICE: ["alice"], BOB: ["bob"], CAROL: []}
ROWS = "SELECT doc_id FROM memory_chunks"
# What a door that was left out of order may answer: nothing, with an error.
REFUSED = (SealedMemoryError, DatabaseError, psycopg.Error)

pytestmark = [
    pytest.mark.usefixtures("readable_names"),
    pytest.mark.django_db(transaction=True),
    # The pool's threads draw random numbers while hypothesis draws its own.
    pytest.mark.filterwarnings("ignore:Do not use the `random` module"),
]


@pytest.fixture(autouse=True)
def _rows(transactional_db: None) -> None:
    remember(ALICE, "alice", "Alice's diary")
    remember(BOB, "bob", "Bob's diary")
    connection.close()


def rows(using: str = "default") -> list[str]:
    """What a bare SELECT sees, without the ORM's own filter."""
    with connections[using].cursor() as cursor:
        return [doc_id for (doc_id,) in cursor.execute(ROWS).fetchall()]


Suspended = Generator[None, None, None]


def suspended(door: Any) -> Suspended:
    """A generator that stands inside a door from now on, until it is closed."""

    def inside() -> Suspended:
        with door:
            yield

    generator = inside()
    next(generator)
    return generator


def assert_usable() -> None:
    assert rows() == []
    for user_id in (ALICE, BOB):
        with tenant_transaction(user_id):
            assert rows() == OWN[user_id]
    assert rows() == []


class TestFrames:
    def test_a_door_left_before_the_one_inside_it_lets_nobody_else_in(self) -> None:
        first, second = suspended(tenant_transaction(ALICE)), suspended(tenant_transaction(ALICE))
        with pytest.raises(DoorOutOfOrder):
            first.close()
        with pytest.raises(SecondTenant), tenant_transaction(BOB):
            pass
        with pytest.raises(DatabaseError):
            rows()
        with pytest.raises(DoorOutOfOrder):
            second.close()
        assert_usable()

    def test_nothing_that_was_done_in_either_is_kept(self) -> None:
        first, second = suspended(tenant_transaction(ALICE)), suspended(tenant_transaction(ALICE))
        MemoryChunk.objects.all().delete()
        for generator in (first, second):
            with pytest.raises(DoorOutOfOrder):
                generator.close()
        assert_usable()

    def test_the_door_around_both_fails_too(self) -> None:
        with pytest.raises(DoorOutOfOrder), tenant_transaction(ALICE):
            first, second = suspended(tenant_transaction(ALICE)), suspended(tenant_transaction(ALICE))
            for generator in (first, second):
                with pytest.raises(DoorOutOfOrder):
                    generator.close()
        assert_usable()

    def test_a_broken_door_is_not_entered_again(self) -> None:
        first, second = suspended(tenant_transaction(ALICE)), suspended(tenant_transaction(ALICE))
        with pytest.raises(DoorOutOfOrder):
            first.close()
        with pytest.raises(DoorOutOfOrder), tenant_transaction(ALICE):
            pass
        with pytest.raises(DoorOutOfOrder):
            second.close()

    def test_an_atomic_block_that_outlives_the_door_around_it_counts(self) -> None:
        door, block = suspended(tenant_transaction(ALICE)), suspended(transaction.atomic())
        with pytest.raises(DoorOutOfOrder):
            door.close()
        with pytest.raises(DatabaseError):
            rows()
        block.close()
        assert_usable()

    def test_in_an_atomic_block_too(self) -> None:
        block = suspended(transaction.atomic())
        first = suspended(tenant_transaction(ALICE))
        second = suspended(tenant_transaction(ALICE))
        with pytest.raises(DoorOutOfOrder):
            first.close()
        with pytest.raises(REFUSED):
            rows()
        with pytest.raises(DoorOutOfOrder):
            second.close()
        block.close()
        assert_usable()

    def test_raw_cursors_in_a_broken_door_read_nothing(self) -> None:
        """The connection does not go back to the pool while those inside hold it."""
        first, second = suspended(tenant_transaction(ALICE)), suspended(tenant_transaction(ALICE))
        with ExitStack() as stack:
            send = stack.enter_context(sending())
            with pytest.raises(DoorOutOfOrder):
                first.close()
            with pytest.raises(psycopg.OperationalError, match="closed"):
                send(ROWS)
        with pytest.raises(DoorOutOfOrder):
            second.close()

    def test_the_door_across_hashes_is_no_exception(self) -> None:
        first, second = suspended(across_user_hashes(ALICE)), suspended(tenant_transaction(ALICE))
        with pytest.raises(DoorOutOfOrder):
            first.close()
        with pytest.raises(DoorOutOfOrder):
            second.close()
        assert_usable()

    def test_doors_that_are_left_in_order_may_be_generators(self) -> None:
        first, second = suspended(tenant_transaction(ALICE)), suspended(tenant_transaction(ALICE))
        second.close()
        assert rows() == ["alice"]
        first.close()
        assert_usable()

    def test_a_second_thread_on_the_connection_is_refused(self) -> None:
        caught: list[Exception] = []

        def enter() -> None:
            connections["default"] = shared
            try:
                with tenant_transaction(ALICE):
                    pass
            except DoorOutOfOrder as error:
                caught.append(error)

        shared = connections["default"]
        shared.inc_thread_sharing()
        try:
            with tenant_transaction(ALICE):
                thread = threading.Thread(target=enter)
                thread.start()
                thread.join()
                assert rows() == ["alice"]
        finally:
            shared.dec_thread_sharing()
        assert len(caught) == 1

    @pytest.mark.parametrize("value", ["", "0" * 63, "A" * 64, "person:1", "0" * 64 + "\n"])
    def test_a_door_by_hash_takes_a_hash(self, value: str) -> None:
        with pytest.raises(ValueError, match="64 lower-case hex"), tenant_transaction_by_hash(value):
            pass
        assert_usable()


@contextmanager
def aliases(*names: str) -> Iterator[None]:
    """Further connections of this thread to the same database."""
    with ExitStack() as stack:
        for name in names:
            connections[name] = type(connections["default"])(copy.deepcopy(connection.settings_dict), alias=name)
            connections[name].settings_dict["OPTIONS"].pop("pool", None)
            stack.callback(connections.__delitem__, name)
            stack.callback(connections[name].close)
        yield


# Mostly two users on one connection, for that is where they meet.
USERS = st.sampled_from([ALICE, ALICE, BOB, CAROL])
ENTER, LEAVE, LOOK = "enter", "leave", "look"
bounded = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@bounded
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(ENTER), st.sampled_from(["default", "default", "other"]), USERS, st.booleans()),
            st.tuples(st.just(LEAVE), st.integers(0, 2)),
            st.tuples(st.just(LOOK), st.integers(0, 2)),
        ),
        min_size=6,
        max_size=14,
    )
)
@example(
    [
        (ENTER, "default", ALICE, False),
        (ENTER, "default", ALICE, False),
        (LEAVE, 0),
        (ENTER, "default", BOB, False),
        (LOOK, 0),
    ]
)
def test_generators_interleaved_at_random_see_their_own_rows_or_an_error(steps: list[Any]) -> None:
    standing: list[tuple[str, str, Suspended]] = []
    with aliases("other"):
        for step in steps:
            if step[0] == ENTER:
                _, alias, user_id, in_atomic = step
                with ExitStack() as stack:
                    if in_atomic:
                        stack.enter_context(transaction.atomic(using=alias))
                    stack.enter_context(suppress(*REFUSED))
                    if not in_atomic:
                        standing.append((alias, user_id, suspended(tenant_transaction(user_id, using=alias))))
                    else:
                        with tenant_transaction(user_id, using=alias):
                            assert rows(alias) == OWN[user_id]
            elif standing and step[0] == LEAVE:
                with suppress(*REFUSED):
                    standing.pop(step[1] % len(standing))[2].close()
            elif standing:
                alias, user_id, _ = standing[step[1] % len(standing)]
                with suppress(*REFUSED):
                    assert rows(alias) == OWN[user_id]
        for _, _, generator in standing:
            with suppress(*REFUSED):
                generator.close()
        for alias in ("default", "other"):
            assert rows(alias) == []


async def connect() -> psycopg.AsyncConnection[Any]:
    return await connections["default"].connect_async()  # type: ignore[attr-defined]


async def rows_of(conn: psycopg.AsyncConnection[Any]) -> list[str]:
    return [doc_id for (doc_id,) in await (await conn.execute(ROWS)).fetchall()]


def in_async(work: Callable[[], Awaitable[Any]]) -> Any:
    return async_to_sync(work)()


class Actor:
    """A task that enters and leaves contexts when it is told to, one command at a time."""

    def __init__(self) -> None:
        self.contexts: list[Any] = []
        self._commands: asyncio.Queue[tuple[Callable[[], Coroutine[Any, Any, Any]], asyncio.Future[Any]]]
        self._commands = asyncio.Queue()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            work, done = await self._commands.get()
            try:
                done.set_result(await work())
            except Exception as error:
                done.set_exception(error)

    async def do(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        done = asyncio.get_running_loop().create_future()
        await self._commands.put((work, done))
        return await done

    async def enter(self, conn: psycopg.AsyncConnection[Any], user_id: str) -> None:
        context = set_rls_context(conn, user_id)
        await self.do(context.__aenter__)
        self.contexts.append((conn, user_id, context))

    async def leave(self, place: int = -1) -> None:
        _, _, context = self.contexts.pop(place)
        await self.do(lambda: context.__aexit__(None, None, None))

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


class TestTasks:
    def test_a_second_task_is_refused_and_the_first_goes_on(self) -> None:
        async def work() -> list[list[str]]:
            async with await connect() as conn:
                first, second = Actor(), Actor()
                await first.enter(conn, ALICE)
                with pytest.raises(DoorOutOfOrder):
                    await second.enter(conn, ALICE)
                with pytest.raises(SecondTenant):
                    await second.enter(conn, BOB)
                inside = await rows_of(conn)
                await first.leave()
                await second.enter(conn, BOB)
                after = await rows_of(conn)
                await second.leave()
                await first.end()
                await second.end()
                return [inside, after, await rows_of(conn)]

        assert in_async(work) == [["alice"], ["bob"], []]

    def test_a_context_left_before_the_one_inside_it_closes_the_connection(self) -> None:
        async def work() -> None:
            conn = await connect()
            outer, inner = set_rls_context(conn, ALICE), set_rls_context(conn, ALICE)
            await outer.__aenter__()
            await inner.__aenter__()
            with pytest.raises(DoorOutOfOrder):
                await outer.__aexit__(None, None, None)
            assert conn.closed
            with pytest.raises(SecondTenant):
                await set_rls_context(conn, BOB).__aenter__()
            with pytest.raises(psycopg.OperationalError):
                await rows_of(conn)
            with pytest.raises(DoorOutOfOrder):
                await inner.__aexit__(None, None, None)

        in_async(work)

    def test_a_transaction_block_that_outlives_the_context_around_it_closes_the_connection(self) -> None:
        async def work() -> None:
            conn = await connect()
            context, block = set_rls_context(conn, ALICE), conn.transaction()
            await context.__aenter__()
            await block.__aenter__()
            with pytest.raises(psycopg.ProgrammingError):
                await context.__aexit__(None, None, None)
            assert conn.closed

        in_async(work)

    def test_a_child_task_that_is_waited_for_nests(self) -> None:
        async def child(conn: psycopg.AsyncConnection[Any]) -> list[str]:
            async with set_rls_context(conn, ALICE):
                return await rows_of(conn)

        async def work() -> list[list[str]]:
            async with await connect() as conn, set_rls_context(conn, ALICE):
                return [await asyncio.create_task(child(conn)), await rows_of(conn)]

        assert in_async(work) == [["alice"], ["alice"]]

    def test_of_gathered_children_one_at_a_time_is_let_in(self) -> None:
        async def child(conn: psycopg.AsyncConnection[Any]) -> list[str]:
            async with set_rls_context(conn, ALICE):
                await asyncio.sleep(0)
                return await rows_of(conn)

        async def work() -> list[Any]:
            async with await connect() as conn, set_rls_context(conn, ALICE):
                answers = await asyncio.gather(*(child(conn) for _ in range(3)), return_exceptions=True)
                return [*answers, await rows_of(conn)]

        first, second, third, afterwards = in_async(work)
        assert (first, afterwards) == (["alice"], ["alice"])
        assert isinstance(second, DoorOutOfOrder) and isinstance(third, DoorOutOfOrder)

    @pytest.mark.parametrize("joined", [False, True])
    @pytest.mark.parametrize("turns", range(12))
    def test_cancelled_anywhere_it_leaves_nothing_behind(self, turns: int, joined: bool) -> None:
        """Cancelled after so many turns of the loop: while entering, inside, while leaving, or not at all."""

        async def one(conn: psycopg.AsyncConnection[Any]) -> None:
            async with set_rls_context(conn, ALICE):
                await rows_of(conn)

        async def work() -> None:
            conn = await connect()
            if joined:
                await conn.execute("SELECT 1")
            task = asyncio.create_task(one(conn))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not conn.closed:
                try:
                    assert await rows_of(conn) == []
                except psycopg.errors.InFailedSqlTransaction:
                    await conn.rollback()
                async with set_rls_context(conn, BOB):
                    assert await rows_of(conn) == ["bob"]
                await conn.close()

        in_async(work)

    def test_cancelled_while_it_waits_for_the_connection_to_leave(self) -> None:
        """Another task holds the connection's lock, so not even the ROLLBACK is sent: the connection is closed."""

        async def one(conn: psycopg.AsyncConnection[Any], inside: asyncio.Event, go: asyncio.Event) -> None:
            async with set_rls_context(conn, ALICE):
                inside.set()
                await go.wait()

        async def work() -> bool:
            conn = await connect()
            await conn.execute("SELECT 1")
            inside, go = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(one(conn, inside, go))
            await inside.wait()
            async with conn.lock:
                go.set()
                for _cancelled in range(3):
                    await asyncio.sleep(0)
                    task.cancel()
                await asyncio.wait([task])
            return conn.closed

        assert in_async(work)


@bounded
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(ENTER), st.integers(0, 2), st.sampled_from([0, 0, 1]), USERS),
            st.tuples(st.just(LEAVE), st.integers(0, 2), st.integers(0, 2)),
            st.tuples(st.just(LOOK), st.integers(0, 2), st.integers(0, 2)),
        ),
        min_size=6,
        max_size=16,
    )
)
@example([(ENTER, 0, 0, ALICE), (ENTER, 1, 0, ALICE), (LEAVE, 0, 0), (ENTER, 2, 0, BOB), (LOOK, 1, 0)])
def test_tasks_interleaved_at_random_see_their_own_rows_or_an_error(steps: list[Any]) -> None:
    async def take(step: Any, actors: list[Actor], conns: list[psycopg.AsyncConnection[Any]]) -> None:
        actor = actors[step[1]]
        if step[0] == ENTER:
            await actor.enter(conns[step[2]], step[3])
        elif actor.contexts and step[0] == LEAVE:
            await actor.leave(step[2] % len(actor.contexts))
        elif actor.contexts:
            conn, user_id, _ = actor.contexts[step[2] % len(actor.contexts)]
            assert await actor.do(lambda: rows_of(conn)) == OWN[user_id]

    async def work() -> None:
        conns = [await connect(), await connect()]
        actors = [Actor(), Actor(), Actor()]
        for step in steps:
            with suppress(*REFUSED):
                await take(step, actors, conns)
        for actor in actors:
            while actor.contexts:
                with suppress(*REFUSED):
                    await actor.leave()
            await actor.end()
        for conn in conns:
            assert conn.closed or await rows_of(conn) == []
            await conn.close()

    in_async(work)


def test_the_hash_of_an_open_door_is_the_users() -> None:
    with tenant_transaction(ALICE) as outer, tenant_transaction(ALICE) as inner:
        assert outer == inner == hmac_user(ALICE)
