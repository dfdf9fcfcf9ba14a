from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections

from project.cache import CounterCache


@pytest.fixture
def cache(db: None) -> CounterCache:
    return CounterCache("project_cache", {})


@pytest.fixture
def shared_cache(transactional_db: None) -> Iterator[CounterCache]:
    """A cache whose writes other connections see."""
    cache = CounterCache("project_cache", {})
    yield cache
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM project_cache")


def test_a_counter_is_made_once_and_raised(cache: CounterCache) -> None:
    assert cache.add("key", 1)
    assert not cache.add("key", 7)
    assert (cache.incr("key"), cache.incr("key", 5)) == (2, 7)
    with pytest.raises(ValueError, match="no counter"):
        cache.incr("other")


def test_an_expired_counter_is_none(cache: CounterCache) -> None:
    cache.add("key", 5, timeout=-1)
    with pytest.raises(ValueError, match="no counter"):
        cache.incr("key")
    assert cache.add("key", 1, timeout=None)
    assert cache.incr("key") == 2


def test_sweep_removes_expired_rows_alone(cache: CounterCache) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM project_cache")  # what requests of other tests were counted in
    cache.add("old", 1, timeout=-1)
    cache.add("new", 1)
    cache.sweep()
    with connection.cursor() as cursor:
        cursor.execute("SELECT key FROM project_cache")
        assert [key for (key,) in cursor.fetchall()] == [cache.make_key("new")]


def test_nothing_but_counters_is_kept(cache: CounterCache) -> None:
    """No pickles: whoever writes into the table by SQL runs no code of theirs in a web process."""
    with pytest.raises(NotImplementedError):
        cache.get("key")
    with pytest.raises(NotImplementedError):
        cache.set("key", "value")


def test_several_counters_are_raised_together(cache: CounterCache) -> None:
    assert cache.incr_all({"a": 60, "b": 60}) == {"a": 1, "b": 1}
    assert cache.incr_all({"b": 60, "c": 60}) == {"b": 2, "c": 1}
    cache.incr_all({"old": -1})
    assert cache.incr_all({"old": 60}) == {"old": 1}  # an expired one begins anew
    assert cache.incr("old") == 2


@pytest.mark.django_db(transaction=True)
def test_calls_that_raise_the_same_counters_never_wait_for_each_other(shared_cache: CounterCache) -> None:
    def count(number: int) -> None:
        try:
            for _ in range(25):
                shared_cache.incr_all(dict.fromkeys(("user", "token")[:: 1 if number % 2 else -1], 60))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))
    assert shared_cache.incr_all({"user": 60, "token": 60}) == {"user": 101, "token": 101}


@pytest.mark.django_db(transaction=True)
def test_no_count_is_lost_between_connections(shared_cache: CounterCache) -> None:
    shared_cache.add("key", 0)

    def count(_: int) -> None:
        try:
            for _ in range(25):
                shared_cache.incr("key")
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))
    assert shared_cache.incr("key") == 101
