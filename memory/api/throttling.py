"""How often one identity may call, counted where all processes see it (the default cache).

A fixed window: one counter an identity, scope and window, raised by one atomic statement.
"""

import logging
import time
from collections.abc import Callable

from django.conf import settings
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from memory.access.identity import Identity
from memory.security import hmac_user

logger = logging.getLogger(__name__)

PERIODS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def parse_rate(rate: str) -> tuple[int, int]:
    """(requests, seconds) of `600/min`. Raises ImproperlyConfigured."""
    count, _, period = rate.partition("/")
    if not count.isdigit() or int(count) < 1 or period not in PERIODS:
        raise ImproperlyConfigured(f"A rate is a number, a slash and one of {', '.join(PERIODS)}: 600/min.")
    return int(count), PERIODS[period]


class IdentityThrottle(BaseThrottle):
    """Refuses an identity's calls beyond MEMORY_THROTTLE_<the view's throttle_scope>; an empty rate refuses none."""

    timer: Callable[[], float] = staticmethod(time.time)

    def allow_request(self, request: Request, view: APIView) -> bool:
        scope = getattr(view, "throttle_scope", "other")
        rate = getattr(settings, f"MEMORY_THROTTLE_{scope.upper()}")
        identity = getattr(request._request, "memory_identity", None)
        if not rate or not isinstance(identity, Identity):
            return True
        limit, seconds = parse_rate(rate)
        now = self.timer()
        self._wait = seconds - now % seconds
        return self._count(f"throttle:{scope}:{hmac_user(identity.user_id)}:{int(now // seconds)}", seconds) <= limit

    def wait(self) -> float:
        """Seconds until the window ends."""
        return self._wait

    def _count(self, key: str, seconds: int) -> int:
        """Calls in this window, this one included; 0 when the cache is away."""
        try:
            return _raise(key, 2 * seconds)
        except DatabaseError:
            raise  # The database is away, and with it all there is to serve.
        except Exception as failure:  # Whatever Redis or its client raises: availability fails open.
            logger.warning("throttle cache unavailable", extra={"reason": type(failure).__name__})
            return 0


def _raise(key: str, timeout: int) -> int:
    """Add one to a counter, made if need be: one statement, but for the first call and its rivals."""
    try:
        return cache.incr(key)
    except ValueError:
        return 1 if cache.add(key, 1, timeout=timeout) else cache.incr(key)
