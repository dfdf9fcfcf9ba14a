"""Planner settings for the statements of a search, so that each has only one plan to take, whatever the statistics say.

Each is a `SET LOCAL`, the statement: Citus tells its workers of that, and not of `set_config()`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from memory.tenancy.cursors import Send


@contextmanager
def planner_settings(send: Send, settings: Mapping[str, str], *, restore: bool = True) -> Iterator[None]:
    """These settings for the statements sent inside; the transaction then gets those of the session again.

    `restore=False` saves as many statements, for the last ones of a transaction that ends behind them. After an error
    nothing has to be taken back: it ends the transaction, or rolls back to where they were not set.
    """
    for name, value in settings.items():
        send(f"SET LOCAL {name} = '{value}'", ())
    yield
    if restore:
        for name in settings:
            send(f"SET LOCAL {name} TO DEFAULT", ())
