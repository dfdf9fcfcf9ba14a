"""Being the owner for a moment: what migrates and flushes, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connections

from .base import DatabaseWrapper
from .dsn import django_settings


def owner_connection(connection: DatabaseWrapper) -> DatabaseWrapper:
    """A Django connection as memory_owner to the database of `connection`, without a pool, not yet open."""
    parameters = django_settings(connection.parameters_of("owner"))
    return DatabaseWrapper({**connection.settings_dict, **parameters}, alias=connection.alias)


@contextmanager
def as_owner(using: str = DEFAULT_DB_ALIAS) -> Iterator[DatabaseWrapper]:
    """Within the block, this thread's connection `using` is memory_owner's; afterwards it is again what it was.

    It is another connection: what the application's connection has not committed is not seen, and what it has locked
    is waited for. Raises ImproperlyConfigured without DATABASE_OWNER_URL.
    """
    before = connections[using]
    if not isinstance(before, DatabaseWrapper):
        raise TypeError(f"Database {using!r} does not use the engine project.database.")
    owner = owner_connection(before)
    connections[using] = owner
    try:
        yield owner
    finally:
        connections[using] = before
        owner.close()
