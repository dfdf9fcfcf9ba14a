"""Runs each statement that reaches tenant rows in a door of its own, where a user is bound and no door is open.

`TenantMiddleware` binds the user of a request. So a view may call `MemoryChunk.objects.filter(source="chat")`, or send
SQL through a cursor, and sees its user's rows: BEGIN and `SET LOCAL` are sent before the statement, COMMIT after it.
Inside an atomic block of the view, each statement runs in a savepoint, and the setting is reset after it. A unit of
work belongs into one `tenant_transaction()`, which also costs less.

Only statements whose text names a tenant table, or the setting, are wrapped. A statement that reaches tenant rows under
another name (a database function or view), or that does not pass Django's `execute` (`copy`, `stream`), finds no rows
without an explicit door.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS
from django.db.backends.base.base import BaseDatabaseWrapper

from memory.exceptions import OutsideTenantTransaction
from memory.rls import tenant_transaction
from memory.tenancy.current_hash import SETTING
from memory.tenancy.live_database import tenant_tables
from memory.tenancy.open_doors import bound_user_id, may_have_bound_user, open_door

NO_SERVER_CURSOR = (
    "A server-side cursor, which .iterator() takes, outlives the statement's own transaction: open a "
    "tenant_transaction() around it, or leave out .iterator()."
)


def wrap_statements(sender: Any, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Receiver of Django's `connection_created`."""
    if connection.alias == DEFAULT_DB_ALIAS and in_own_door not in connection.execute_wrappers:
        # At the front: code that adds a wrapper for a while removes the last one afterwards.
        connection.execute_wrappers.insert(0, in_own_door)


def in_own_door(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Run a statement, in the bound user's door if it needs one.

    Without a bound user it runs as it is, and row-level security shows it no rows. Raises OutsideTenantTransaction for
    a server-side cursor, which needs an explicit door.
    """
    connection = context["connection"]
    if not may_have_bound_user() or open_door(connection) is not None:
        return execute(sql, params, many, context)
    text = str(sql)
    if not _reaches_tenants(text) or (user_id := bound_user_id()) is None:
        return execute(sql, params, many, context)
    if isinstance(context["cursor"].cursor, psycopg.ServerCursor):
        raise OutsideTenantTransaction(NO_SERVER_CURSOR)
    with tenant_transaction(user_id):
        return execute(sql, params, many, context)


def _reaches_tenants(statement: str) -> bool:
    # This runs for every statement of a request: looking for each word takes 1 µs, one regular expression took 15.
    lower = statement.lower()
    return any(word in lower for word in _tenant_words())


@cache
def _tenant_words() -> tuple[str, ...]:
    return (*tenant_tables(), SETTING)
