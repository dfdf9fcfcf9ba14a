"""Planner settings for the statements of a search, so that each has only one plan to take, whatever the statistics say.

Each is a `SET LOCAL`, the statement: Citus tells its workers of that, and not of `set_config()`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connections

from memory.wire import Send


@contextmanager
def pinned(send: Send, pins: Mapping[str, str], using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """These settings for the statements sent inside.

    A transaction that goes on after the door gets its own back. The door's own ends with them, which saves as many
    statements again; what is pinned later in it overrides them by name.
    """
    for name, value in pins.items():
        send(f"SET LOCAL {name} = '{value}'", ())
    yield
    if len(connections[using].atomic_blocks) > 1:
        for name in pins:
            send(f"SET LOCAL {name} TO DEFAULT", ())
