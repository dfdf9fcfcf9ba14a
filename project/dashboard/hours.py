"""Reads the recorded hours: sums, the last sample of each level, series in even steps, percentiles of buckets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.utils import timezone

from project.dashboard import levels

DAY = timedelta(hours=24)
SUMS = """
SELECT name, sum(value), coalesce(sum(value) FILTER (WHERE hour = %(now)s), 0)
FROM project_hourlycount WHERE hour > %(since)s AND name <> ALL (%(levels)s) GROUP BY name
"""
LEVELS = """
SELECT name, (SELECT value FROM project_hourlycount AS kept WHERE kept.name = asked.name ORDER BY hour DESC LIMIT 1)
FROM unnest(%s::text[]) AS asked (name)
"""
# Sums of what is counted, the greatest of what is sampled: by step, for a list of names.
SERIES = """
SELECT name, date_bin(make_interval(hours => %(hours)s), hour, %(start)s),
    CASE WHEN name = ANY (%(levels)s) THEN max(value) ELSE sum(value) END
FROM project_hourlycount WHERE name = ANY (%(names)s) AND hour >= %(start)s GROUP BY 1, 2
"""
MOST_POINTS = 168
INFINITE = float("inf")


@dataclass(frozen=True)
class Sums:
    """Sums by name of the last 24 hours, the present one included, and of the present hour alone."""

    day: Mapping[str, float]
    hour: Mapping[str, float]


def sums() -> Sums:
    """What was counted lately."""
    now = this_hour()
    with connection.cursor() as cursor:
        cursor.execute(SUMS, {"now": now, "since": now - DAY, "levels": list(levels.ALL)})
        rows = cursor.fetchall()
    return Sums({name: day for name, day, _ in rows}, {name: hour for name, _, hour in rows})


def last_levels() -> dict[str, float]:
    """The last sample of each level; without those that were never sampled."""
    with connection.cursor() as cursor:
        cursor.execute(LEVELS, [list(levels.ALL)])
        return {name: value for name, value in cursor.fetchall() if value is not None}


@dataclass(frozen=True)
class Series:
    """Numbers by name and by step. `values(name)[i]` belongs to the `step` from `start + i * step` on."""

    start: datetime
    step: timedelta
    points: int
    found: Mapping[tuple[str, int], float]

    def value(self, name: str, point: int) -> float | None:
        """None where nothing was recorded."""
        return self.found.get((name, point))


def series(names: Iterable[str], *, days: int) -> Series:
    """The last `days` in at most MOST_POINTS even steps, the last of which holds the present hour."""
    hours = max(1, -(-days * 24 // MOST_POINTS))
    step = timedelta(hours=hours)
    points = int(timedelta(days=days) / step)
    start = this_hour() + timedelta(hours=1) - points * step
    with connection.cursor() as cursor:
        cursor.execute(SERIES, {"hours": hours, "start": start, "names": list(names), "levels": list(levels.ALL)})
        found = {(name, int((at - start) / step)): value for name, at, value in cursor.fetchall()}
    return Series(start, step, points, found)


def this_hour() -> datetime:
    """The beginning of the present hour, in UTC."""
    return timezone.now().astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def bucket_names(prefix: str, bounds: Iterable[float]) -> dict[float, str]:
    """The names of a histogram's buckets by their upper bound, the last of which is infinite."""
    finite = {bound: f"{prefix} {float(bound)}" for bound in bounds if bound != INFINITE}
    return {**finite, INFINITE: f"{prefix} +Inf"}


def buckets(prefix: str, bounds: Iterable[float], counts: Mapping[str, float]) -> dict[float, float]:
    """The cumulative counts of a histogram by upper bound. What was never counted was not kept: 0."""
    return {bound: counts.get(name, 0.0) for bound, name in bucket_names(prefix, bounds).items()}


def percentile(cumulative: Mapping[float, float], share: float) -> float | None:
    """The value below which `share` of the observations lie, interpolated within its bucket as Prometheus does it.

    None without observations; the greatest finite bound for what lies beyond it.
    """
    bounds = sorted(cumulative)
    if not bounds or not cumulative[bounds[-1]]:
        return None
    wanted, below, low = share * cumulative[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        count = cumulative[bound]
        if count >= wanted:
            if bound == INFINITE:
                return low
            return low + (bound - low) * (wanted - below) / (count - below)
        below, low = count, bound
    return None
