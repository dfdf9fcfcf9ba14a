"""Ids of new rows: the layout of RFC 9562, and that they rise whatever the clock does."""

import threading
from uuid import RFC_4122, UUID

import pytest

from memory.index import uuid7 as module
from memory.index.uuid7 import uuid7


@pytest.fixture(autouse=True)
def _own_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_last", 0)


def at(monkeypatch: pytest.MonkeyPatch, *nanoseconds: int) -> list[UUID]:
    """Ids that are made at these times."""
    times = iter(nanoseconds)
    monkeypatch.setattr(module, "clock", lambda: next(times))
    return [uuid7() for _ in nanoseconds]


def test_the_layout_is_the_rfcs(monkeypatch: pytest.MonkeyPatch) -> None:
    # The example of RFC 9562, appendix A.6: 2022-02-22 19:22:22 UTC, and half a millisecond more.
    (made,) = at(monkeypatch, 0x017F22E279B0 * 1_000_000 + 500_000)
    assert (made.version, made.variant) == (7, RFC_4122)
    assert made.hex[:12] == "017f22e279b0" and made.hex[13:16] == "800"


def test_they_rise_while_the_clock_stands_or_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    second = 1_000_000_000
    made = at(monkeypatch, 5 * second, 5 * second, 5 * second, 1 * second, 6 * second)
    assert made == sorted(set(made))


def test_they_rise_in_every_thread_and_none_comes_twice() -> None:
    found: list[list[UUID]] = []
    threads = [threading.Thread(target=lambda: found.append([uuid7() for _ in range(2_000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in found)
    assert len({each for ids in found for each in ids}) == 8_000
