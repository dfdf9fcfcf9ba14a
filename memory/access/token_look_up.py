"""Finds the token of a request by one prepared statement, as each request does.

The ORM would make this statement anew for every request, and Postgres plan it anew: a millisecond of processor time in
all, a tenth of what a query takes.
"""

from functools import cache
from typing import Any, TypeVar

import psycopg
from django.contrib.auth import get_user_model
from django.db import connections, models
from django.utils import timezone
from knox.crypto import hash_token
from knox.settings import CONSTANTS

Token = TypeVar("Token", bound=models.Model)


def find(manager: "models.Manager[Token]", secret: str) -> Token | None:
    """The usable token of that secret, with its account and the account's service."""
    token, account, service = _models(manager.model)
    connection = connections[manager.db]
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        parameters = [hash_token(secret), secret[: CONSTANTS.TOKEN_KEY_LENGTH], timezone.now()]
        row = cursor.execute(_statement(token), parameters, prepare=True).fetchone()
    if row is None:
        return None
    values = iter(row)
    found, user, holder = (_instance(manager.db, model, values) for model in (token, account, service))
    token._meta.get_field("user").set_cached_value(found, user)
    service._meta.get_field("user").remote_field.set_cached_value(user, holder)
    if holder is not None:
        service._meta.get_field("user").set_cached_value(holder, user)
    return found


def _models(token: Any) -> tuple[Any, Any, Any]:
    return token, get_user_model(), token._meta.apps.get_model("memory", "ServiceAccount")


@cache
def _statement(token: Any) -> str:
    """A token that is neither expired nor revoked, of an active account; as `AccessTokenManager.usable` has it."""
    tables = dict(zip("tus", (model._meta for model in _models(token)), strict=True))
    columns = ", ".join(f'{name}."{field.column}"' for name, meta in tables.items() for field in meta.concrete_fields)
    names = {name: meta.db_table for name, meta in tables.items()}
    return f"""
        SELECT {columns} FROM "{names["t"]}" t
        JOIN "{names["u"]}" u ON u.id = t.user_id LEFT JOIN "{names["s"]}" s ON s.user_id = u.id
        WHERE t.digest = %s AND t.token_key = %s AND (t.expiry IS NULL OR t.expiry > %s)
            AND t.revoked_at IS NULL AND u.is_active
    """  # noqa: S608  (names come from the models)


def _instance(using: str, model: type[models.Model], values: Any) -> Any:
    names = [field.attname for field in model._meta.concrete_fields]
    row = [next(values) for _ in names]
    return None if row[0] is None else model.from_db(using, names, row)
