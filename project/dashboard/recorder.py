"""Records the hours: every serving process adds what it counted, and one samples what the database knows.

A thread does it once a minute, and once more when the process ends; who is killed loses a minute. What cannot be
written is told the next time. Hours older than KEPT are deleted.
"""

import contextlib
import os
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from threading import Lock

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.models.functions import Now

from keys.repeating import Repeating
from project.dashboard import counted, levels
from project.models import HourlyCount

EVERY_SECONDS = 60.0
KEPT = timedelta(days=35)
ADD = """
INSERT INTO project_hourlycount AS kept (name, hour, value)
SELECT name, date_trunc('hour', now(), 'UTC'), value
FROM unnest(%s::text[], %s::float8[]) AS told (name, value) ORDER BY name
ON CONFLICT (name, hour) DO UPDATE SET value = kept.value + EXCLUDED.value
"""
REPLACE = ADD.replace("kept.value + EXCLUDED.value", "EXCLUDED.value")
AWAY = (DatabaseError, psycopg.Error, ImproperlyConfigured)


class Recorder:
    """What this process has counted and not yet told."""

    def __init__(self) -> None:
        self._told = counted.read()
        self._telling = Lock()
        self._sampler = levels.Sampler()

    def record(self) -> None:
        """Add to the present hour, and sample when it is this process's turn."""
        self.tell()
        if found := self._sampler.sample():
            write(found, statement=REPLACE)
            HourlyCount.objects.filter(hour__lt=Now() - KEPT).delete()

    def tell(self) -> None:
        """Add what was counted since the last time to the present hour. Raises a database error, and tells it later."""
        with self._telling:
            now = counted.read()
            new = {name: value - self._told.get(name, 0.0) for name, value in now.items()}
            write({name: value for name, value in new.items() if value > 0}, statement=ADD)
            self._told = now


def write(values: Mapping[str, float], *, statement: str) -> None:
    """Put numbers into the row of the present hour: ADD to what is there, or REPLACE it."""
    if values:
        with connection.cursor() as cursor:
            cursor.execute(statement, [list(values), list(map(float, values.values()))])


@cache
def _of_process(pid: int) -> Recorder:
    """A forked child counts anew: its parent tells its own."""
    return Recorder()


def _record() -> None:
    _of_process(os.getpid()).record()


def _tell_the_rest() -> None:
    with contextlib.suppress(*AWAY), contextlib.closing(connection):
        _of_process(os.getpid()).tell()


thread = Repeating("dashboard", _record, EVERY_SECONDS, at_end=_tell_the_rest)
