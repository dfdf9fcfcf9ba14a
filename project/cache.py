"""The default cache: counters in an unlogged Postgres table that all processes share.

It holds what throttles need, whole numbers that expire, and nothing else: Django's own database cache unpickles
whatever its table holds, and its `incr` is a read and a write, which loses counts between processes.
"""

import random
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.db import connection
from django.utils import timezone

SWEEP_SHARE = 1 / 256
"""Share of the calls that make a counter which delete some expired ones besides."""
SWEEP_ROWS = 1_000

INCR_ALL = """
    INSERT INTO {table} AS counter (key, number, expires_at) VALUES {values} ON CONFLICT (key) DO UPDATE SET
        number = CASE WHEN counter.expires_at <= statement_timestamp() THEN 1 ELSE counter.number + 1 END,
        expires_at = CASE WHEN counter.expires_at <= statement_timestamp() THEN excluded.expires_at
            ELSE counter.expires_at END
    RETURNING key, number
"""


class CounterCache(BaseCache):
    """`add` and `incr` of Django's cache interface, for integers; and `incr_all`, both for several at once."""

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

    def incr_all(self, timeouts: Mapping[str, int]) -> dict[str, int]:
        """Add one to each counter in one statement, making those that there are not; returns their values.

        `timeouts`: seconds that a counter lives from its first call on, by its key.
        """
        # In one order, so that two calls never wait for each other.
        keys = {self.make_and_validate_key(key): key for key in timeouts}
        rows = [(key, 1, self._expiry(timeouts[keys[key]])) for key in sorted(keys)]
        values = ", ".join(["(%s, %s, %s)"] * len(rows))
        with connection.cursor() as cursor:
            cursor.execute(INCR_ALL.format(table=self._table, values=values), [each for row in rows for each in row])
            counted = {keys[key]: number for key, number in cursor.fetchall()}
        if 1 in counted.values() and random.random() < SWEEP_SHARE:  # noqa: S311
            self.sweep()
        return counted

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
