"""The connection pool: psycopg's, set up so that it works again at once after the server was restarted.

psycopg's pool checks a connection before it gives it out, and after two broken ones it pauses, longer each time. After
a restart every idle connection is broken, the pauses add up to more than the timeout, and requests fail although the
server answers. So the first broken connection makes the pool replace all idle ones.

A check that asks the server takes a round trip. A connection that was in use a moment ago is only looked at: that the
server has stopped or crashed shows on the socket.
"""

import select
import time
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import psycopg
from psycopg_pool import ConnectionPool

from database import embedded_postgres

IDLE_SECONDS = 5.0
"""A connection that was given out less than this ago is not asked whether it still works."""

_given_out: WeakKeyDictionary[psycopg.Connection, float] = WeakKeyDictionary()


def make_pool(
    parameters: dict[str, Any],
    configure: Callable[[psycopg.Connection], object],
    options: dict[str, Any],
    embedded_dir: str | None,
) -> ConnectionPool:
    """A pool, not yet open. `options` are ConnectionPool's; with `embedded_dir` it starts that server when needed."""
    connection_class = _healing_connection(embedded_dir) if embedded_dir else psycopg.Connection
    # Django sets autocommit as it needs, connection by connection.
    return ConnectionPool(
        kwargs={**parameters, "autocommit": True},
        connection_class=connection_class,
        configure=cast(Callable[[psycopg.Connection], None], configure),
        check=_check,
        open=False,
        **options,
    )


def _check(connection: psycopg.Connection) -> None:
    now = time.monotonic()
    last, _given_out[connection] = _given_out.get(connection, -IDLE_SECONDS), now
    if now - last < IDLE_SECONDS and not _has_news(connection):
        return
    try:
        ConnectionPool.check_connection(connection)
    except psycopg.Error:
        pool = cast(ConnectionPool, connection._pool)
        pool.drain()
        raise


def _has_news(connection: psycopg.Connection) -> bool:
    """Whether the server has sent something unasked, its goodbye or the end of the connection."""
    if connection.closed:
        return True
    events = select.poll()
    events.register(connection.fileno(), select.POLLIN)
    return bool(events.poll(0))


def _healing_connection(data_dir: str) -> type[psycopg.Connection]:
    """A connection class that starts the server of `data_dir` again when it is gone."""

    class HealingConnection(psycopg.Connection):
        @classmethod
        def connect(cls, *args: Any, **kwargs: Any) -> Any:
            try:
                return super().connect(*args, **kwargs)
            except psycopg.OperationalError:
                if embedded_postgres.is_running(data_dir):
                    raise
            embedded_postgres.ensure_running(data_dir)
            return super().connect(*args, **kwargs)

    return HealingConnection
