"""Planner settings for the statements of a search, so that each has only one plan to take, whatever the statistics say.

They are set for the transaction: `SET LOCAL` in its form as a function, several in one statement.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from memory.wire import Send


@contextmanager
def pinned(send: Send, pins: Mapping[str, str]) -> Iterator[None]:
    """These settings for the statements sent inside; the transaction then gets the configured ones back.

    Not after an error, which ends the transaction and with it the settings.
    """
    _set(send, pins)
    yield
    _set(send, dict.fromkeys(pins))


def _set(send: Send, pins: Mapping[str, str | None]) -> None:
    calls = ", ".join("set_config(%s, %s, true)" for _ in pins)
    send(f"SELECT {calls}", [part for pin in pins.items() for part in pin])
