"""Counts calls in fixed time windows for throttles, in the default cache, which all processes share.

There is one counter for each budget and window, and all budgets of a call are counted by one atomic statement. The name
of a counter is a hash of a user, or the number of a token, a service or an address' hash.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError

logger = logging.getLogger(__name__)

PERIODS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
timer = time.time


@dataclass(frozen=True)
class Budget:
    """How often something may be done (`600/min`; "" for any number of times), and under which name it is counted.
    `policy`: what callers know the budget as."""

    policy: str
    rate: str
    counter: str


@dataclass(frozen=True)
class Standing:
    """A budget after a call was counted: `quota` calls in `window` seconds, of which `left` are left for `reset`
    seconds. `exceeded`: this call was one too many. `left` is None where the cache is away: then nobody knows."""

    policy: str
    quota: int
    window: int
    left: int | None
    reset: float
    exceeded: bool


def parse_rate(rate: str) -> tuple[int, int]:
    """(requests, seconds) of `600/min`. Raises ImproperlyConfigured."""
    count, _, period = rate.partition("/")
    if not (count.isascii() and count.isdigit()) or int(count) < 1 or period not in PERIODS:
        raise ImproperlyConfigured(f"A rate is a number, a slash and one of {', '.join(PERIODS)}: 600/min.")
    return int(count), PERIODS[period]


def count_call(budgets: Sequence[Budget]) -> list[Standing]:
    """Count one call in every budget that has a rate, also where another of them is spent."""
    limits = [(budget, *parse_rate(budget.rate)) for budget in budgets if budget.rate]
    now = timer()
    keys = [f"throttle:{budget.counter}:{int(now // window)}" for budget, _, window in limits]
    counts = _counted({key: 2 * window for key, (_, _, window) in zip(keys, limits, strict=True)})
    return [
        Standing(
            policy=budget.policy,
            quota=quota,
            window=window,
            left=None if counts is None else max(0, quota - counts[key]),
            reset=window - now % window,
            exceeded=counts is not None and counts[key] > quota,
        )
        for key, (budget, quota, window) in zip(keys, limits, strict=True)
    ]


def seconds_to_wait(standings: Sequence[Standing]) -> float:
    """0 when every budget allows the call, else the seconds until all of them do."""
    return max((standing.reset for standing in standings if standing.exceeded), default=0)


def headers(standings: Sequence[Standing]) -> dict[str, str]:
    """What a caller is told of its budgets: draft-ietf-httpapi-ratelimit-headers-10. Empty where nothing is known."""
    known = [standing for standing in standings if standing.left is not None]
    if not known:
        return {}
    return {
        "RateLimit-Policy": ", ".join(f'"{each.policy}";q={each.quota};w={each.window}' for each in known),
        "RateLimit": ", ".join(f'"{each.policy}";r={each.left};t={math.ceil(each.reset)}' for each in known),
    }


def _counted(timeouts: Mapping[str, int]) -> dict[str, int] | None:
    """The counters of these keys, this call included; None when the cache is away."""
    if not timeouts:
        return {}
    try:
        return _raise(timeouts)
    except DatabaseError:
        raise  # The database is away, and with it all there is to serve.
    except Exception as failure:  # Whatever Redis or its client raises: availability fails open.
        logger.warning("throttle cache unavailable", extra={"reason": type(failure).__name__})
        return None


def _raise(timeouts: Mapping[str, int]) -> dict[str, int]:
    """Add one to each counter: one statement in our own cache, one command a counter in Redis."""
    if hasattr(cache, "incr_all"):
        counted: dict[str, int] = cache.incr_all(timeouts)
        return counted
    return {key: _raise_one(key, seconds) for key, seconds in timeouts.items()}


def _raise_one(key: str, timeout: int) -> int:
    try:
        return cache.incr(key)
    except ValueError:
        return 1 if cache.add(key, 1, timeout=timeout) else cache.incr(key)
