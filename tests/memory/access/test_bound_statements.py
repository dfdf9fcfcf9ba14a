"""Views that know nothing of doors see their user's rows, through real requests and as the application's role."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from psycopg import sql

from keys.generation import generate_key
from memory.access.identity import person_user_id
from memory.exceptions import OutsideTenantTransaction, SecondTenant
from memory.models import MemoryChunk, Tenant
from memory.rls import tenant_transaction
from memory.security import hmac_user
from tests.factories import BOB, make_token, make_user, recall, remember, texts, vector_of

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls(__name__),
    pytest.mark.usefixtures("readable_names"),
]

View = Callable[[HttpRequest], Any]
current: dict[str, View] = {}


def view(request: HttpRequest) -> Any:
    return current["view"](request)


async def async_view(request: HttpRequest) -> Any:
    return await current["view"](request)


urlpatterns = [
    path("api/probe", view),
    path("elsewhere", view),
    path("api/async", async_view),
    path("elsewhere/async", async_view),
]


class Caller:
    """An account with one memory, that sends requests."""

    def __init__(self, name: str) -> None:
        self.user = make_user(name)
        self.user_id = person_user_id(self.user.pk)
        self.headers = {"Authorization": f"Bearer {make_token(self.user)}"}
        remember(self.user_id, name, f"{name}'s diary")

    def get(self, work: View, where: str = "/api/probe") -> Any:
        current["view"] = lambda request: JsonResponse({"answer": work(request)})
        return Client(headers=self.headers).get(where).json()["answer"]


@pytest.fixture
def alice() -> Caller:
    return Caller("alice")


@pytest.fixture
def bob() -> Caller:
    return Caller("bob")


def documents(request: Any = None) -> list[str]:
    return [chunk.doc_id for chunk in MemoryChunk.objects.filter(source="chat")]


def bare(request: Any = None, statement: Any = "SELECT doc_id FROM memory_chunks") -> list[str]:
    """What a cursor sees, without the ORM's own filter."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return [value for (value,) in cursor.fetchall()]


def setting(request: Any = None) -> str:
    return bare(statement="SELECT current_setting('app.user_hash', true)")[0]


class TestReading:
    @pytest.mark.parametrize("work", [documents, bare])
    @pytest.mark.parametrize("where", ["/api/probe", "/elsewhere"])
    def test_a_view_sees_its_users_rows(self, alice: Caller, bob: Caller, work: View, where: str) -> None:
        assert alice.get(work, where) == ["alice"]
        assert bob.get(work, where) == ["bob"]

    def test_by_session_too(self, alice: Caller) -> None:
        current["view"] = lambda request: JsonResponse({"answer": documents()})
        client = Client()
        client.force_login(alice.user)
        assert client.get("/elsewhere").json() == {"answer": ["alice"]}

    def test_the_setting_is_there_in_the_request_and_gone_behind_it(self, alice: Caller) -> None:
        assert alice.get(setting) == hmac_user(alice.user_id)
        assert not setting()

    @pytest.mark.parametrize(
        "work",
        [
            lambda _: MemoryChunk.objects.count(),
            lambda _: Tenant.objects.get().chunk_count,
            lambda _: int(MemoryChunk.objects.get(doc_id="alice").text == "alice's diary"),
            lambda _: len(MemoryChunk.objects.values_list("doc_id", flat=True)),
            lambda _: int(MemoryChunk.objects.exists()),
            lambda _: len(bare(statement=sql.SQL("SELECT doc_id FROM {}").format(sql.Identifier("memory_chunks")))),
            lambda _: len(bare(statement="SELECT 1; SELECT doc_id FROM memory_chunks")),
            lambda _: len(bare(statement='SELECT doc_id FROM "MEMORY_CHUNKS"'.lower())),
        ],
    )
    def test_whatever_the_statement(self, alice: Caller, bob: Caller, work: View) -> None:
        assert alice.get(work) == 1

    def test_nobody_sees_anything(self, alice: Caller) -> None:
        current["view"] = lambda request: JsonResponse({"answer": bare()})
        assert Client().get("/elsewhere").json() == {"answer": []}
        current["view"] = lambda request: JsonResponse({"answer": documents()})
        with pytest.raises(OutsideTenantTransaction):
            Client().get("/elsewhere")
        with pytest.raises(OutsideTenantTransaction):
            Client(headers={"Authorization": "Bearer smem_wrong"}).get("/elsewhere")

    def test_outside_a_request_nothing_is_seen(self, alice: Caller) -> None:
        alice.get(documents)
        assert bare() == []
        with pytest.raises(OutsideTenantTransaction):
            documents()

    def test_pages_that_reach_no_tenant_rows_ask_for_nobody(self, alice: Caller) -> None:
        with CaptureQueriesContext(connection) as captured:
            alice.get(lambda _: User.objects.count(), "/elsewhere")
        assert len(captured) == 1

    def test_requests_in_turn_on_one_connection_keep_their_own(self, alice: Caller, bob: Caller) -> None:
        for _ in range(3):
            assert alice.get(bare) == ["alice"] and bare() == []
            assert bob.get(bare) == ["bob"] and bare() == []

    def test_an_exception_in_the_view_leaves_nothing_behind(self, alice: Caller, bob: Caller) -> None:
        def broken(request: HttpRequest) -> Any:
            assert documents() == ["alice"]
            raise RuntimeError("in the view")

        with pytest.raises(RuntimeError):
            alice.get(broken)
        assert bare() == []
        assert bob.get(bare) == ["bob"]

    def test_a_failed_statement_is_djangos_error_and_leaves_nothing_behind(self, alice: Caller) -> None:
        def fails(request: HttpRequest) -> list[str]:
            with pytest.raises(IntegrityError):
                MemoryChunk.objects.filter(doc_id="alice").update(chunk_index=-1)
            return bare()

        assert alice.get(fails) == ["alice"]
        assert bare() == []

    def test_an_explicit_door_is_left_alone(self, alice: Caller) -> None:
        def inside(request: HttpRequest) -> list[str]:
            with tenant_transaction(), CaptureQueriesContext(connection) as captured:
                bare()
            assert len(captured) == 1
            with pytest.raises(SecondTenant), tenant_transaction(), tenant_transaction(BOB):
                pass
            return bare()

        assert alice.get(inside) == ["alice"]

    def test_an_explicit_door_of_another_user_shows_that_users_rows(self, alice: Caller, bob: Caller) -> None:
        def inside(request: HttpRequest) -> list[str]:
            with tenant_transaction(bob.user_id):
                return documents() + bare()

        assert alice.get(inside) == ["bob", "bob"]

    @pytest.mark.parametrize("atomic", [False, True])
    def test_a_server_side_cursor_is_refused(self, alice: Caller, atomic: bool) -> None:
        def iterates(request: HttpRequest) -> list[str]:
            return [chunk.doc_id for chunk in MemoryChunk.objects.iterator()]

        def in_atomic(request: HttpRequest) -> list[str]:
            with transaction.atomic():
                return iterates(request)

        with pytest.raises(OutsideTenantTransaction, match="iterator"):
            alice.get(in_atomic if atomic else iterates)

        def in_door(request: HttpRequest) -> list[str]:
            with tenant_transaction():
                return iterates(request)

        assert alice.get(in_door) == ["alice"]

    def test_while_several_hmac_keys_are_accepted(self, alice: Caller, bob: Caller, settings: Any) -> None:
        settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED = [settings.MEMORY_TENANT_HMAC_KEY]
        settings.MEMORY_TENANT_HMAC_KEY = generate_key()

        def works(request: HttpRequest) -> list[str]:
            MemoryChunk.objects.get().delete()
            tenant = Tenant.objects.get()
            tenant.chunk_count = 0
            tenant.save()
            return [*documents(), *bare()]

        assert alice.get(works) == []
        assert bob.get(documents) == ["bob"]


class TestWriting:
    def test_changed_and_deleted_by_a_view(self, alice: Caller, bob: Caller) -> None:
        def change(request: HttpRequest) -> list[str]:
            chunk = MemoryChunk.objects.get()
            chunk.source = "mail"
            chunk.save(update_fields=["source"])
            return list(MemoryChunk.objects.filter(source="mail").values_list("doc_id", flat=True))

        assert alice.get(change) == ["alice"]
        assert alice.get(lambda _: MemoryChunk.objects.filter(source="mail").delete()[0]) == 1
        assert (alice.get(bare), bob.get(bare)) == ([], ["bob"])

    def test_a_chunk_made_by_a_view_is_its_users_and_is_found(self, alice: Caller, bob: Caller) -> None:
        def make(request: HttpRequest) -> str:
            fields = {"text": "the cat sat", "embedding": vector_of("the cat sat"), "metadata": {"k": 1}}
            chunk = MemoryChunk.objects.create(doc_id="new", source="chat", **fields)
            chunk.text = "the cat slept"
            chunk.embedding = vector_of("the cat slept")
            chunk.save()
            return chunk.user_hash

        assert bob.get(make) == hmac_user(bob.user_id)
        assert texts(recall(bob.user_id, "the cat slept", top_k=1)) == ["the cat slept"]
        assert "the cat slept" not in texts(recall(alice.user_id, "the cat slept"))
        assert bob.get(lambda _: sorted(documents())) == ["bob", "new"]

    def test_a_tenant_made_by_a_view(self, alice: Caller, bob: Caller) -> None:
        def make(request: HttpRequest) -> str:
            return Tenant.objects.create(user_id=bob.user_id, hmac_key_id="").user_hash

        with tenant_transaction(bob.user_id):
            Tenant.objects.all().delete()
        assert bob.get(make) == hmac_user(bob.user_id)
        assert bob.get(lambda _: Tenant.objects.count()) == 1

    def test_a_row_of_another_is_not_written(self, alice: Caller, bob: Caller) -> None:
        with tenant_transaction(bob.user_id):
            row = MemoryChunk.objects.get()

        def steal(request: HttpRequest) -> None:
            for act in (row.save, row.delete):
                with pytest.raises(SecondTenant):
                    act()

        alice.get(steal)
        assert bob.get(bare) == ["bob"]

    def test_in_an_atomic_block_all_or_nothing(self, alice: Caller) -> None:
        def half(request: HttpRequest) -> None:
            with transaction.atomic():
                MemoryChunk.objects.all().delete()
                assert bare() == []
                raise RuntimeError("in the block")

        with pytest.raises(RuntimeError):
            alice.get(half)
        assert alice.get(bare) == ["alice"]

    def test_an_atomic_block_holds_the_setting_for_its_tenant_statements_alone(
        self, alice: Caller, bob: Caller
    ) -> None:
        def block(request: HttpRequest) -> list[str]:
            with transaction.atomic():
                seen = documents()
                with pytest.raises(RuntimeError), transaction.atomic():
                    seen += documents()
                    raise RuntimeError("in the inner block")
                # Past the wrapper: what the connection itself is left with.
                connection.connection.execute("SELECT 1")
                (left,) = connection.connection.execute("SELECT current_setting('app.user_hash', true)").fetchone()
                assert not left
                # So another user's door may open in it.
                with tenant_transaction(bob.user_id):
                    seen += documents()
                return seen

        assert alice.get(block) == ["alice", "alice", "bob"]

    def test_locked_rows_stay_locked_until_the_block_ends(self, alice: Caller) -> None:
        def locks(request: HttpRequest) -> int:
            with transaction.atomic():
                MemoryChunk.objects.select_for_update().get()
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT count(*) FROM pg_locks WHERE mode = 'RowShareLock' AND pid = pg_backend_pid()"
                    )
                    return cursor.fetchone()[0]

        assert alice.get(locks)


class TestElsewhere:
    def test_a_streamed_answer_is_its_users_to_the_end(self, alice: Caller, bob: Caller) -> None:
        def parts() -> Iterator[str]:
            yield ",".join(bare())
            yield ",".join(documents())

        current["view"] = lambda request: StreamingHttpResponse(parts())
        first = Client(headers=alice.headers).get("/api/probe")
        second = Client(headers=bob.headers).get("/elsewhere")
        read = iter(first)
        assert next(read) == b"alice" and bare() == []
        assert b"".join(second) == b"bobbob"
        assert next(read) == b"alice" and bare() == []

    @pytest.mark.parametrize("where", ["/api/async", "/elsewhere/async"])
    def test_async_views_and_their_streams(self, alice: Caller, bob: Caller, where: str) -> None:
        async def parts() -> AsyncIterator[str]:
            async for chunk in MemoryChunk.objects.all():
                yield chunk.doc_id

        async def answers(request: HttpRequest) -> HttpResponse:
            return JsonResponse({"answer": [chunk.doc_id async for chunk in MemoryChunk.objects.all()]})

        async def streams(request: HttpRequest) -> StreamingHttpResponse:
            return StreamingHttpResponse(parts())

        async def work() -> None:
            for caller, own in ((alice, "alice"), (bob, "bob")):
                client = AsyncClient()
                current["view"] = answers
                assert (await client.get(where, headers=caller.headers)).json() == {"answer": [own]}
                current["view"] = streams
                response = await client.get(where, headers=caller.headers)
                assert b"".join([part async for part in response]) == own.encode()

        async_to_sync(work)()

    def test_a_thread_has_the_user_when_it_is_given_the_context(self, alice: Caller) -> None:
        def threads(request: HttpRequest) -> list[list[str]]:
            seen: list[list[str]] = []

            def look() -> None:
                try:
                    seen.append(bare())
                finally:
                    connections.close_all()

            for target in (look, partial(copy_context().run, look)):
                thread = threading.Thread(target=target)
                thread.start()
                thread.join()
            return seen

        assert alice.get(threads) == [[], ["alice"]]


def test_no_wrapper_of_ours_is_taken_away_by_somebody_elses(alice: Caller) -> None:
    def counts(execute: Any, *arguments: Any) -> Any:
        return execute(*arguments)

    connection.close()
    with connection.execute_wrapper(counts):
        assert alice.get(bare) == ["alice"]
    assert alice.get(bare) == ["alice"]
