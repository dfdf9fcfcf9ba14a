"""Counts calls in fixed time windows for throttles, in the default cache, which all processes share.

There is one counter for each name and window, raised by one atomic statement. A name is a hash of a user, a token or an
address.
"""

import logging
import time

from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError

logger = logging.getLogger(__name__)

PERIODS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
timer = time.time


def parse_rate(rate: str) -> tuple[int, int]:
    """(requests, seconds) of `600/min`. Raises ImproperlyConfigured."""
    count, _, period = rate.partition("/")
    if not count.isdigit() or int(count) < 1 or period not in PERIODS:
        raise ImproperlyConfigured(f"A rate is a number, a slash and one of {', '.join(PERIODS)}: 600/min.")
    return int(count), PERIODS[period]


def seconds_to_wait(rate: str, name: str) -> float:
    """Count one call under `name`: 0 when `rate` allows it, else the seconds until it allows more. "" allows all."""
    if not rate:
        return 0
    limit, seconds = parse_rate(rate)
    now = timer()
    within = _count(f"throttle:{name}:{int(now // seconds)}", 2 * seconds) <= limit
    return 0 if within else seconds - now % seconds


def _count(key: str, timeout: int) -> int:
    """Calls under this key, this one included; 0 when the cache is away."""
    try:
        return _raise(key, timeout)
    except DatabaseError:
        raise  # The database is away, and with it all there is to serve.
    except Exception as failure:  # Whatever Redis or its client raises: availability fails open.
        logger.warning("throttle cache unavailable", extra={"reason": type(failure).__name__})
        return 0


def _raise(key: str, timeout: int) -> int:
    """Add one to a counter: one statement, but for the first calls in a window, which create it."""
    try:
        return cache.incr(key)
    except ValueError:
        return 1 if cache.add(key, 1, timeout=timeout) else cache.incr(key)
