"""Gives every statement that reaches tenant rows a door of its own, where a user is bound and no door is open.

`TenantMiddleware` binds the user of a request. So a view may say `MemoryChunk.objects.filter(source="chat")`, or send
SQL through a cursor, and sees its user's rows: the statement travels with a BEGIN and the `SET LOCAL` before it, and is
committed. Inside an atomic block of the view's the setting comes and goes with each statement, within a savepoint, so
that nothing is left behind in the block. Units of work belong into one `tenant_transaction()`, which costs less too.

Only statements whose text names a tenant table, or the setting, are wrapped; all others are left as they are. What
reaches tenant rows under another name (a function, a view of the database's) finds none without an explicit door, and
so does what does not pass Django's `execute` (`copy`, `stream`).
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
        # First of all: whoever adds wrappers takes the last one away.
        connection.execute_wrappers.insert(0, in_own_door)


def in_own_door(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Run a statement, in the bound user's door if it needs one. Raises OutsideTenantTransaction where none would do.

    Without a bound user it is run as it stands, and row-level security shows it nothing.
    """
    connection = context["connection"]
    if not may_have_bound_user() or open_door(connection) is not None:
        return execute(sql, params, many, context)
    text = str(sql)
    if not _reaches_tenants(text) or (user_id := bound_user_id()) is None:
        return execute(sql, params, many, context)
    if isinstance(context["cursor"].cursor, psycopg.ServerCursor):
        raise OutsideTenantTransaction(NO_SERVER_CURSOR)
    # Several statements in one string cannot travel in a pipeline.
    with tenant_transaction(user_id, pipelined=";" not in text):
        return execute(sql, params, many, context)


def _reaches_tenants(statement: str) -> bool:
    # Every statement of a request comes by here: looking for each word takes 1 µs, one regular expression took 15.
    lower = statement.lower()
    return any(word in lower for word in _tenant_words())


@cache
def _tenant_words() -> tuple[str, ...]:
    return (*tenant_tables(), SETTING)
