"""What the database knows, sampled now and then: tenants, chunks, calls that wait.

Counting reads every tenant's row. So it is done by one process at a time and so rarely that it takes a hundredth of one
connection's time; pages read the last sample.
"""

import time

from django.conf import settings

from database.roles import census
from keys import leases, tallies
from keys.movers import movers
from keys.process import process_name
from memory.index.recipe import configured
from project.database_metrics import OPERATIONS, TENANTS

TENANT_COUNT, CHUNKS, OUTGROWN, STALE = "tenants", "chunks", "outgrown", "stale"
WAITING, OLDEST, SAMPLED_AT, NEXT_AFTER = "waiting", "oldest", "sampled at", "next after"
ALL = (TENANT_COUNT, CHUNKS, OUTGROWN, STALE, WAITING, OLDEST, SAMPLED_AT, NEXT_AFTER)
LEASE = "dashboard sample"
EVERY_SECONDS = 60.0


class Sampler:
    """Samples when no process has lately."""

    def __init__(self) -> None:
        self._next_at = float("-inf")

    def sample(self) -> dict[str, float] | None:
        """The levels now, by name; None when it is not this process's turn."""
        # A lease that is not given back: until it expires no other process samples.
        if time.monotonic() < self._next_at or not leases.take(LEASE, process_name(), EVERY_SECONDS):
            return None
        began = time.monotonic()
        found = read()
        for mover in movers():
            tallies.take_when_due(mover)
        took = time.monotonic() - began
        wait = max(EVERY_SECONDS, tallies.SHARE_OF_TIME * took)
        self._next_at = began + wait
        leases.take(LEASE, process_name(), wait - took)
        return found | {NEXT_AFTER: wait}


def read() -> dict[str, float]:
    """The levels as the census role sees them. Raises what `database.roles.census` raises."""
    with census() as cursor:
        cursor.execute(TENANTS, {"outgrown": settings.MEMORY_EXACT_SCAN_MAX, "current": ["", configured().as_text()]})
        tenants, chunks, outgrown, stale = cursor.fetchone() or (0, 0, 0, 0)
        cursor.execute(OPERATIONS)
        waiting = cursor.fetchall()
    return {
        TENANT_COUNT: tenants,
        CHUNKS: chunks,
        OUTGROWN: outgrown,
        STALE: stale,
        WAITING: sum(count for _, count, _ in waiting),
        OLDEST: max((age for *_, age in waiting), default=0.0),
        SAMPLED_AT: time.time(),
    }
