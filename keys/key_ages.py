"""Finds the current keys that are overdue for rotation, for `check` and `key_status`."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models.functions import Now

from keys.held_keys import held_keys
from keys.models import KeyRecord, Purpose

# A quarter for the key that seals; a year for the HMAC key, whose rotation rewrites every row.
LONGEST = {Purpose.ENCRYPTION: (timedelta(days=92), "a quarter"), Purpose.HMAC: (timedelta(days=365), "a year")}


@dataclass(frozen=True)
class OldKey:
    """A current key that is due for rotation, by when a process first reported it."""

    purpose: Purpose
    key_id: str
    first_seen: datetime

    def __str__(self) -> str:
        return (
            f"{self.key_id}, the {self.purpose.label} key, is older than {LONGEST[self.purpose][1]}"
            f" (first seen {self.first_seen:%Y-%m-%d})"
        )

    @property
    def advice(self) -> str:
        """What to do about it."""
        option = "" if self.purpose == Purpose.ENCRYPTION else f" {self.purpose}"
        return f"manage.py generate_keys --next{option}, then manage.py {held_keys(self.purpose).command}"


def old_keys() -> list[OldKey]:
    """The current keys that are due for rotation."""
    return [old for purpose in Purpose if (old := _old_key(purpose)) is not None]


def _old_key(purpose: Purpose) -> OldKey | None:
    longest, _ = LONGEST[purpose]
    record = KeyRecord.objects.filter(
        purpose=purpose, key_id=held_keys(purpose).current, first_seen__lt=Now() - longest
    ).first()
    return None if record is None else OldKey(purpose, record.key_id, record.first_seen)
