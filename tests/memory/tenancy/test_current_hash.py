"""Which hash a user has while several HMAC keys are accepted, asked of Postgres with two of everything."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from keys.keyring import derive_subkey, get_keyring
from memory.erasure import erase_user
from memory.exceptions import SecondTenant
from memory.index.recipe import configured
from memory.indexing import index_memory_chunk
from memory.models import Tenant
from memory.rls import set_rls_context, tenant_transaction
from memory.security import UserHash, user_hashes
from memory.tenancy import tenant_row
from memory.tenancy.current_hash import resolution
from tests.factories import ALICE, BOB, key, recall, remember, texts, vector_of

OLD, NEW = key(), key()


def hold(settings: Any, current: str, *accepted: str) -> tuple[UserHash, ...]:
    """The process now holds these HMAC keys; returns Alice's hashes under them."""
    settings.MEMORY_TENANT_HMAC_KEY, settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED = current, list(accepted)
    return user_hashes(ALICE)


@contextmanager
def another_process(candidates: tuple[UserHash, ...], *, exclusive: bool = False) -> Iterator[tuple[Any, UserHash]]:
    """A door of another process, which may hold its keys in another order."""
    with psycopg.connect(**connections["default"].parameters_of("app")) as conn:
        steps = resolution(candidates, exclusive=exclusive)
        statement = next(steps)
        while True:
            cursor = conn.execute(statement.encode())
            while cursor.nextset():
                pass
            try:
                statement = steps.send(cursor.description is not None and cursor.fetchone() is not None)
            except StopIteration as end:
                yield conn, end.value
                return


def create_tenant(conn: psycopg.Connection[Any], user_hash: UserHash) -> None:
    statement, parameters = tenant_row.create(ALICE, user_hash, configured().as_text())
    conn.execute(statement.replace("%b", "%s").encode(), parameters)


def tenants() -> list[str]:
    with connections["default"].connect_as("census") as census:
        return [row[0] for row in census.execute("SELECT user_hash FROM tenants ORDER BY user_hash")]


class Meanwhile(threading.Thread):
    """Runs `work` in a thread that ends its connections; `finish` waits for it and raises what it raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.work = work
        self.failure: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.work()
        except Exception as failure:
            self.failure = failure
        finally:
            connections.close_all()

    def finish(self) -> None:
        self.join(10)
        assert not self.is_alive()
        if self.failure:
            raise self.failure


def waiting_for_a_lock() -> bool:
    """Whether some transaction waits for an advisory lock, asked until one does."""
    with psycopg.connect(**connections["default"].parameters_of("app"), autocommit=True) as conn:
        for _ in range(500):
            if conn.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone():
                return True
            conn.execute("SELECT pg_sleep(0.01)")
    return False


@pytest.mark.django_db
class TestOneKey:
    def test_costs_no_statement_but_the_setting(self) -> None:
        with (
            CaptureQueriesContext(
                connection,
            ) as queries,
            tenant_transaction(ALICE),
        ):
            pass
        assert [query["sql"].split()[0] for query in queries if "SAVEPOINT" not in query["sql"]][:1] == ["SET"]
        assert not [query for query in queries if "SELECT" in query["sql"]]


@pytest.mark.django_db
class TestSeveralKeys:
    def test_an_unmoved_user_is_served_under_the_old_hash(self, settings: Any) -> None:
        hold(settings, OLD)
        remember(ALICE, "diary", "Apollo")
        _, old = hold(settings, NEW, OLD)
        remember(ALICE, "letters", "Gemini")
        assert texts(recall(ALICE, "Apollo")) == ["Apollo", "Gemini"]
        with tenant_transaction(ALICE) as user_hash:
            assert user_hash == old
            assert Tenant.objects.get().chunk_count == 2

    def test_a_new_user_is_made_under_the_current_key_and_says_so(self, settings: Any) -> None:
        new, _ = hold(settings, NEW, OLD)
        remember(ALICE, "diary", "Apollo")
        with tenant_transaction(ALICE) as user_hash:
            assert user_hash == new
            assert Tenant.objects.get().hmac_key_id == get_keyring().hmac_current.key_id

    def test_after_the_old_key_is_promoted_again_the_user_is_still_found(self, settings: Any) -> None:
        hold(settings, NEW, OLD)
        remember(ALICE, "diary", "Apollo")
        hold(settings, OLD, NEW)
        assert texts(recall(ALICE, "Apollo")) == ["Apollo"]

    def test_a_door_inside_the_door_has_its_hash(self, settings: Any) -> None:
        hold(settings, OLD)
        remember(ALICE, "diary", "Apollo")
        hold(settings, NEW, OLD)
        with tenant_transaction(ALICE) as outer, tenant_transaction(ALICE) as inner:
            assert inner == outer
            with pytest.raises(SecondTenant), tenant_transaction(BOB):
                pass

    def test_erased_users_come_back_under_the_current_key(self, settings: Any) -> None:
        hold(settings, OLD)
        remember(ALICE, "diary", "Apollo")
        new, _ = hold(settings, NEW, OLD)
        erase_user(user_id=ALICE)
        remember(ALICE, "diary", "Gemini")
        with tenant_transaction(ALICE) as user_hash:
            assert user_hash == new


@pytest.mark.django_db(transaction=True)
class TestTwoProcesses:
    def test_of_two_first_writers_the_second_finds_what_the_first_made(self, settings: Any) -> None:
        """Their current keys differ: one was promoted earlier than the other."""
        new, old = hold(settings, NEW, OLD)
        with another_process((old, new)) as (conn, theirs):
            assert theirs == old
            other = Meanwhile(lambda: remember(ALICE, "diary", "Apollo"))
            assert waiting_for_a_lock()
            create_tenant(conn, theirs)
        other.finish()
        assert tenants() == [old]

    def test_a_flip_waits_for_open_doors_and_later_doors_for_the_flip(self, settings: Any) -> None:
        hold(settings, OLD)
        remember(ALICE, "diary", "Apollo")
        new, old = hold(settings, NEW, OLD)

        def flip() -> None:
            with another_process((new, old), exclusive=True) as (conn, theirs):
                conn.execute("DELETE FROM tenants WHERE user_hash = %s", [theirs])
                conn.execute(f"SET LOCAL app.user_hash = '{new}'")
                create_tenant(conn, new)

        with tenant_transaction(ALICE) as user_hash:
            flipping = Meanwhile(flip)
            assert waiting_for_a_lock()
            assert user_hash == old
            assert Tenant.objects.get().chunk_count == 1
        flipping.finish()
        assert tenants() == [new]
        with tenant_transaction(ALICE) as user_hash:
            assert user_hash == new

    def test_the_async_door_resolves_alike(self, settings: Any) -> None:
        hold(settings, OLD)
        remember(ALICE, "diary", "Apollo")
        new, old = hold(settings, NEW, OLD)
        seen: list[str] = []

        async def write(user_id: str) -> None:
            conn = await connections["default"].connect_async()
            async with conn:
                async with set_rls_context(conn, user_id) as user_hash:
                    seen.append(user_hash)
                await index_memory_chunk(conn, user_id, "letters", "", "Gemini", vector_of("Gemini"), {})

        async_to_sync(write)(ALICE)
        async_to_sync(write)(BOB)
        assert seen == [old, user_hashes(BOB)[0]]
        assert sorted(texts(recall(ALICE, "Gemini"))) == ["Apollo", "Gemini"]
        assert sorted(tenants()) == sorted([old, user_hashes(BOB)[0]])


def test_a_user_hash_is_a_str_that_survives_copies(settings: Any) -> None:
    new, old = hold(settings, NEW, OLD)
    copy = deepcopy(old)
    assert copy == old
    assert copy.hmac_key_id == old.hmac_key_id != new.hmac_key_id


def test_a_subkey_comes_from_the_key_that_made_the_hash(settings: Any) -> None:
    (old,) = hold(settings, OLD)
    before = derive_subkey(b"label:", old)
    _, old = hold(settings, NEW, OLD)
    assert derive_subkey(b"label:", old, old.hmac_key_id) == before
