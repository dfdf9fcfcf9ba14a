"""Planner settings for single statements, so that each has only one plan, whatever the statistics say.

Each is set by the statement `SET LOCAL`, which Citus propagates to its workers; it does not propagate `set_config()`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from memory.tenancy.cursors import Send


@contextmanager
def planner_settings(send: Send, settings: Mapping[str, str], *, restore: bool = True) -> Iterator[None]:
    """Apply settings to the statements sent inside; afterwards the session's settings apply again.

    `restore=False` leaves them set until the transaction ends, which saves statements. After an error nothing has to be
    restored: it ends the transaction, or rolls back to a savepoint before they were set.
    """
    for name, value in settings.items():
        send(f"SET LOCAL {name} = '{value}'", ())
    yield
    if restore:
        for name in settings:
            send(f"SET LOCAL {name} TO DEFAULT", ())
