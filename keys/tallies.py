"""Rows by table and key id as they were last counted, so that looking at a page counts nothing.

To count reads the key id of every row. It is done by rotations, which count anyway, by `key_status`, and now and then
by a process that serves (`take_when_due`): so rarely that it takes a hundredth of one connection's time.
"""

import time
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django.db.models.functions import Now
from django.utils import timezone

from keys.models import KeyTally, Purpose
from keys.movers import KeyCount, Mover, mover_of

LEAST_INTERVAL = timedelta(seconds=60)
SHARE_OF_TIME = 100
"""The next count comes after so many times as long as the last one took."""


@dataclass(frozen=True)
class Tally:
    """Counts as of `counted_at`, which took `seconds`."""

    counts: list[KeyCount]
    counted_at: datetime
    seconds: float

    @property
    def is_due(self) -> bool:
        """Whether it may be taken anew."""
        return timezone.now() - self.counted_at > max(LEAST_INTERVAL, timedelta(seconds=SHARE_OF_TIME * self.seconds))


def take(mover: Mover) -> Tally:
    """Count now, and keep what was counted. Raises what `mover.key_counts` raises."""
    began = time.monotonic()
    counts = mover.key_counts()
    seconds = time.monotonic() - began
    if type(mover) is type(mover_of(mover.purpose)):  # a benchmark's mover counts its own tenants alone
        KeyTally.objects.update_or_create(
            purpose=mover.purpose,
            defaults={"counts": [asdict(count) for count in counts], "seconds": seconds, "counted_at": Now()},
        )
    return Tally(counts, timezone.now(), seconds)


def latest(purpose: Purpose) -> Tally | None:
    """What was counted last; None before the first time."""
    kept = KeyTally.objects.filter(purpose=purpose).first()
    return None if kept is None else Tally([KeyCount(**each) for each in kept.counts], kept.counted_at, kept.seconds)


def take_when_due(mover: Mover) -> None:
    """Count when the last count is old enough."""
    last = latest(mover.purpose)
    if last is None or last.is_due:
        take(mover)
