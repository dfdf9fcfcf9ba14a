"""The default cache: one unlogged Postgres table that all processes share.

Django's own database cache was not taken. It unpickles whatever the table holds, so whoever can write SQL as the
application could run code in it and read its keys; here a pickle is opened only if its HMAC under SECRET_KEY is right.
And its `incr` is a read and a write, which loses counts between processes; here it is one statement.
"""

import hmac
import pickle
import random
from datetime import datetime, timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.db import connection
from django.utils import timezone
from django.utils.crypto import salted_hmac

DIGEST_BYTES = 32
SWEEP_SHARE = 1 / 256
"""Share of writes that also delete expired rows."""
SWEEP_ROWS = 1_000


class PostgresCache(BaseCache):
    """Django's cache interface over a table (key, number, value, expires_at) that a migration makes.

    Integers live in `number`, where the database can add to them; everything else is a signed pickle in `value`.
    """

    def __init__(self, table: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._table = connection.ops.quote_name(table)

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self._write(key, value, timeout, version, "WHERE cached.expires_at <= statement_timestamp()")

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        self._write(key, value, timeout, version, "")

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        full_key = self.make_and_validate_key(key, version)
        row = self._run(f"SELECT number, value FROM {self._table} WHERE key = %s AND {_ALIVE}", [full_key])  # noqa: S608
        if row is None:
            return default
        number, value = row
        return number if value is None else _opened(full_key, bytes(value), default)

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        full_key = self.make_and_validate_key(key, version)
        row = self._run(
            f"UPDATE {self._table} SET number = number + %s"  # noqa: S608
            f" WHERE key = %s AND number IS NOT NULL AND {_ALIVE} RETURNING number",
            [delta, full_key],
        )
        if row is None:
            raise ValueError("There is no number under that key.")
        return row[0]

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        full_key = self.make_and_validate_key(key, version)
        row = self._run(
            f"UPDATE {self._table} SET expires_at = %s WHERE key = %s AND {_ALIVE} RETURNING true",  # noqa: S608
            [self._expiry(timeout), full_key],
        )
        return row is not None

    def delete(self, key: str, version: int | None = None) -> bool:
        full_key = self.make_and_validate_key(key, version)
        return self._run(f"DELETE FROM {self._table} WHERE key = %s RETURNING true", [full_key]) is not None  # noqa: S608

    def clear(self) -> None:
        self._run(f"DELETE FROM {self._table} WHERE true RETURNING true", [])  # noqa: S608

    def _write(self, key: str, value: Any, timeout: Any, version: int | None, condition: str) -> bool:
        full_key = self.make_and_validate_key(key, version)
        number, blob = (value, None) if type(value) is int and abs(value) < 2**63 else (None, _sealed(full_key, value))
        row = self._run(
            f"INSERT INTO {self._table} AS cached (key, number, value, expires_at) VALUES (%s, %s, %s, %s)"  # noqa: S608
            " ON CONFLICT (key) DO UPDATE SET number = excluded.number, value = excluded.value,"
            f" expires_at = excluded.expires_at {condition} RETURNING true",
            [full_key, number, blob, self._expiry(timeout)],
        )
        if random.random() < SWEEP_SHARE:  # noqa: S311
            self.sweep()
        return row is not None

    def sweep(self) -> None:
        """Delete some expired rows."""
        self._run(
            f"DELETE FROM {self._table} WHERE key IN (SELECT key FROM {self._table}"  # noqa: S608
            " WHERE expires_at <= statement_timestamp() LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING true",
            [SWEEP_ROWS],
        )

    def _expiry(self, timeout: Any) -> datetime | None:
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        return None if seconds is None else timezone.now() + timedelta(seconds=seconds)

    def _run(self, statement: str, parameters: list[Any]) -> tuple[Any, ...] | None:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchone()


_ALIVE = "(expires_at IS NULL OR expires_at > statement_timestamp())"


def _sealed(key: str, value: Any) -> bytes:
    pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return _digest(key, pickled) + pickled


def _opened(key: str, blob: bytes, default: Any) -> Any:
    digest, pickled = blob[:DIGEST_BYTES], blob[DIGEST_BYTES:]
    if not hmac.compare_digest(digest, _digest(key, pickled)):
        return default
    return pickle.loads(pickled)  # noqa: S301  signed by us, just checked


def _digest(key: str, pickled: bytes) -> bytes:
    return salted_hmac(f"project.cache:{key}", pickled, algorithm="sha256").digest()
