"""Planner settings for single statements, so that each has only one plan, whatever the statistics say.

Each is set by the statement `SET LOCAL`, which Citus propagates to its workers; it does not propagate `set_config()`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from memory.tenancy.cursors import Send

_NONE: Mapping[str, str] = MappingProxyType({})


def set_local_sql(settings: Mapping[str, str]) -> list[str]:
    """The statements that apply settings until the transaction ends."""
    return [f"SET LOCAL {name} = '{value}'" for name, value in settings.items()]


@contextmanager
def planner_settings(
    send: Send, settings: Mapping[str, str], *, restore: bool = True, around: Mapping[str, str] = _NONE
) -> Iterator[None]:
    """Apply settings to the statements sent inside; afterwards those of the session, or `around`, apply again.

    `restore=False` leaves them set until the transaction ends, which saves statements. After an error nothing has to be
    restored: it ends the transaction, or rolls back to a savepoint before they were set.
    """
    for statement in set_local_sql(settings):
        send(statement, ())
    yield
    if restore:
        for name in settings:
            send(f"SET LOCAL {name} = '{around[name]}'" if name in around else f"SET LOCAL {name} TO DEFAULT", ())
