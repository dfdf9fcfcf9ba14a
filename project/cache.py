"""The default cache: counters in an unlogged Postgres table that all processes share.

It holds what throttles need, whole numbers that expire, and nothing else: Django's own database cache unpickles
whatever its table holds, and its `incr` is a read and a write, which loses counts between processes.
"""

import random
from datetime import datetime, timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.db import connection
from django.utils import timezone

SWEEP_SHARE = 1 / 256
"""Share of calls to `add` that delete some expired counters besides."""
SWEEP_ROWS = 1_000


class CounterCache(BaseCache):
    """`add` and `incr` of Django's cache interface, for integers."""

    def __init__(self, table: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._table = connection.ops.quote_name(table)

    def add(self, key: str, value: int, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Create a counter, and return True; return False when there is an unexpired one."""
        row = self._run(
            f"INSERT INTO {self._table} AS counter (key, number, expires_at) VALUES (%s, %s, %s)"  # noqa: S608
            " ON CONFLICT (key) DO UPDATE SET number = excluded.number, expires_at = excluded.expires_at"
            " WHERE counter.expires_at <= statement_timestamp() RETURNING true",
            [self.make_and_validate_key(key, version), value, self._expiry(timeout)],
        )
        if random.random() < SWEEP_SHARE:  # noqa: S311
            self.sweep()
        return row is not None

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Add to a counter and return its value. Raises ValueError when there is no unexpired one."""
        row = self._run(
            f"UPDATE {self._table} SET number = number + %s WHERE key = %s"  # noqa: S608
            " AND (expires_at IS NULL OR expires_at > statement_timestamp()) RETURNING number",
            [delta, self.make_and_validate_key(key, version)],
        )
        if row is None:
            raise ValueError("There is no counter under that key.")
        return int(row[0])

    def sweep(self) -> None:
        """Delete some expired counters."""
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
