import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections

from project.cache import PostgresCache


@pytest.fixture
def cache(db: None) -> PostgresCache:
    return PostgresCache("project_cache", {})


@pytest.fixture
def shared_cache(transactional_db: None) -> Iterator[PostgresCache]:
    """A cache whose writes other connections see."""
    cache = PostgresCache("project_cache", {})
    yield cache
    cache.clear()


@pytest.mark.parametrize("value", [0, -5, 2**63, True, None, "text", b"\0", 1.5, [1, {"a": (2,)}]])
def test_value_comes_back_as_it_was(cache: PostgresCache, value: Any) -> None:
    cache.set("key", value)
    found = cache.get("key", "nothing")
    assert found == value and type(found) is type(value)


def test_absent_and_expired_keys_are_absent(cache: PostgresCache) -> None:
    assert cache.get("key", "default") == "default"
    cache.set("key", 1, timeout=0)
    assert cache.get("key") is None
    assert "key" not in cache
    cache.set("key", 1, timeout=None)
    assert cache.get("key") == 1


def test_add_writes_only_where_nothing_lives(cache: PostgresCache) -> None:
    assert cache.add("key", 1)
    assert not cache.add("key", 2)
    assert cache.get("key") == 1
    cache.set("key", 1, timeout=-1)
    assert cache.add("key", 3)
    assert cache.get("key") == 3


def test_incr_touch_delete_and_clear(cache: PostgresCache) -> None:
    cache.set("key", 1)
    assert cache.incr("key") == 2
    assert cache.decr("key", 5) == -3
    assert cache.touch("key", 100) and not cache.touch("other")
    assert cache.delete("key") and not cache.delete("key")
    with pytest.raises(ValueError):
        cache.incr("key")
    cache.set("text", "no number")
    with pytest.raises(ValueError):
        cache.incr("text")
    cache.clear()
    assert cache.get("text") is None


def test_sweep_removes_expired_rows_alone(cache: PostgresCache) -> None:
    cache.set("old", 1, timeout=-1)
    cache.set("new", 1)
    cache.sweep()
    with connection.cursor() as cursor:
        cursor.execute("SELECT key FROM project_cache")
        assert [key for (key,) in cursor.fetchall()] == [cache.make_key("new")]


class Exploding:
    def __reduce__(self) -> Any:
        return (subprocess.check_call, ([sys.executable, "-c", "raise SystemExit(1)"],))


def test_pickle_that_somebody_wrote_by_sql_is_never_opened(cache: PostgresCache) -> None:
    cache.set("key", "value")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE project_cache SET value = %s", [b"\0" * 32 + pickle.dumps(Exploding())])
    assert cache.get("key", "default") == "default"


def test_value_moved_to_another_key_is_not_opened(cache: PostgresCache) -> None:
    cache.set("key", "value")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE project_cache SET key = %s", [cache.make_key("other")])
    assert cache.get("other") is None


@pytest.mark.django_db(transaction=True)
def test_no_count_is_lost_between_connections(shared_cache: PostgresCache) -> None:
    shared_cache.set("key", 0)

    def count(_: int) -> None:
        try:
            for _ in range(25):
                shared_cache.incr("key")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))
    assert shared_cache.get("key") == 100
