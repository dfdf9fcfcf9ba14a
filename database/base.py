"""The database backend: django-prometheus' Postgres, which also starts the embedded server and knows other roles."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.backends.base.base import NO_DB_ALIAS
from django_prometheus.db.backends.postgresql import base
from psycopg.pq import ExecStatus
from psycopg_pool import ConnectionPool

from database import embedded_postgres

from .creation import DatabaseCreation
from .dsn import VARIABLES, django_settings
from .pool import make_pool


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection as the application's role.

    Server-side binding stays off, Django's default: it changes the meaning of some of the ORM's queries, and bulk
    writes take psycopg's own cursor, whose parameters are binary anyway.
    """

    creation_class = DatabaseCreation
    _first_statements: Sequence[str] = ()

    @contextmanager
    def beginning_with(self, statements: Sequence[str]) -> Iterator[None]:
        """The next transaction that begins inside begins with these statements.

        They travel in one message with its BEGIN, so they cost no round trip; psycopg would send BEGIN alone and wait.
        """
        self._first_statements = statements
        try:
            yield
        finally:
            self._first_statements = ()

    def _set_autocommit(self, autocommit: bool) -> None:
        super()._set_autocommit(autocommit)
        if self._first_statements and not autocommit:
            statements, self._first_statements = self._first_statements, ()
            self._begin("; ".join(["BEGIN", *statements]))

    def _begin(self, statements: str) -> None:
        try:
            with self.wrap_database_errors:
                # Under psycopg's cursors, which would put a BEGIN of their own in front.
                result = self.connection.pgconn.exec_(statements.encode())
                if result.status != ExecStatus.COMMAND_OK:
                    error = psycopg.errors.error_from_result(result)
                    # libpq's own errors have no SQLSTATE: the server is away, as psycopg's cursors say.
                    raise error if error.sqlstate else psycopg.OperationalError(str(error))
        except DatabaseError:
            self.close()  # Django does not know yet that there is a transaction, and would not end it.
            raise

    @property
    def embedded_dir(self) -> str | None:
        """The data directory of the embedded server, or None when DATABASE_URL names a Postgres."""
        return self.settings_dict.get("EMBEDDED_DIR")

    @property
    def pool(self) -> ConnectionPool | None:
        """This process's connection pool, not necessarily open. It replaces Django's, which takes no check of ours."""
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        if self.alias not in self._connection_pools:
            made = make_pool(self.get_connection_params(), self._configure_connection, options, self.embedded_dir)
            # Threads that come here at once may make several; none is open yet, and the first one stays.
            self._connection_pools.setdefault(self.alias, made)
        return self._connection_pools[self.alias]

    def get_new_connection(self, conn_params: dict[str, Any]) -> psycopg.Connection:
        """Connect. While no pool is open, start the embedded server first: the pool would not wait for its start."""
        if self.embedded_dir and not self._pool_is_open:
            embedded_postgres.ensure_running(self.embedded_dir)
        return super().get_new_connection(conn_params)

    @property
    def _pool_is_open(self) -> bool:
        known = self._connection_pools.get(self.alias)
        return known is not None and not known.closed

    def connect_as(self, role: str) -> psycopg.Connection:
        """A fresh connection as `role` ("owner", "census" or "backup"), autocommit off, which the caller closes.

        Raises ImproperlyConfigured naming the variable when that role has no connection, psycopg.OperationalError
        when the server does not answer.
        """
        self._start_embedded()
        return psycopg.connect(**self.parameters_of(role))

    def as_owner(self) -> "DatabaseWrapper":
        """A Django connection as memory_owner to the same database, without a pool, not yet open."""
        parameters = django_settings(self.parameters_of("owner"))
        return DatabaseWrapper({**self.settings_dict, **parameters}, alias=self.alias)

    async def connect_async(self) -> psycopg.AsyncConnection:
        """A fresh async connection as the application's role, autocommit off, which the caller closes."""
        await asyncio.to_thread(self._start_embedded)
        return await psycopg.AsyncConnection.connect(**self.parameters_of("app"))

    def parameters_of(self, role: str) -> dict[str, Any]:
        """Connection parameters of `role`, in the database that this connection uses (a test run changes it)."""
        known: dict[str, dict[str, str]] = settings.DATABASE_ROLES
        if role not in known:
            raise ImproperlyConfigured(f"This needs the {role} role of the database: set {VARIABLES[role]}.")
        configured, current = known["app"].get("dbname", ""), self.settings_dict["NAME"]
        renamed = {"dbname": current} if current != configured else {}
        return {**known[role], **renamed}

    def _start_embedded(self) -> None:
        if self.embedded_dir:
            embedded_postgres.ensure_running(self.embedded_dir)


def _forget_connections() -> None:
    """In a forked child, drop the parent's connections and pools without closing them: the parent still uses them."""
    _parents_own.extend(DatabaseWrapper._connection_pools.values())
    DatabaseWrapper._connection_pools.clear()
    for connection in connections.all(initialized_only=True):
        _parents_own.append(connection.connection)
        connection.connection = None


# References kept in a child process, so that garbage collection there does not close what the parent uses.
_parents_own: list[Any] = []
os.register_at_fork(after_in_child=_forget_connections)
