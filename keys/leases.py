"""Leases: rows that expire, by which one process at a time does some work.

A session-level advisory lock would break behind a pooler in transaction mode, so a lease is a row: taken and renewed by
one statement, and taken over once its holder has been silent past `expires_at`. All times are the database's.

    with hold("rotation") as lease:
        for step in work:
            lease.renew()
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, transaction
from django.db.models.functions import Now

from keys.exceptions import LeaseLost, LeaseTaken
from keys.models import Lease
from keys.process import process_name

SECONDS = 30.0

# clock_timestamp(), not now(): the time of the statement, however old its transaction is.
_TAKE = """
INSERT INTO keys_lease AS lease (name, holder, expires_at)
VALUES (%(name)s, %(holder)s, clock_timestamp() + %(seconds)s * interval '1 second')
ON CONFLICT (name) DO UPDATE SET holder = EXCLUDED.holder, expires_at = EXCLUDED.expires_at
WHERE lease.holder = EXCLUDED.holder OR lease.expires_at < clock_timestamp()
RETURNING name
"""


@dataclass(frozen=True)
class HeldLease:
    """A lease that this process holds as long as it renews it within `seconds`."""

    name: str
    holder: str
    seconds: float = SECONDS
    using: str = DEFAULT_DB_ALIAS

    def renew(self) -> None:
        """Hold it for another `seconds`. Raises LeaseLost when it expired and another process took it."""
        if not take(self.name, self.holder, self.seconds, using=self.using):
            raise LeaseLost(f"The lease {self.name!r} expired and another process took it.")

    def release(self) -> None:
        """Give it back, if it is still ours."""
        Lease.objects.using(self.using).filter(name=self.name, holder=self.holder).delete()


@contextlib.contextmanager
def hold(name: str, *, seconds: float = SECONDS, using: str = DEFAULT_DB_ALIAS) -> Iterator[HeldLease]:
    """Hold a lease for the block. Raises LeaseTaken, naming holder and expiry, when another process holds it.

    Not inside a transaction: other processes would not see the lease before the commit.
    """
    lease = HeldLease(name, process_name(), seconds, using)
    if not take(name, lease.holder, seconds, using=using):
        raise LeaseTaken(_who(name, using))
    try:
        yield lease
    finally:
        # Without a database the lease cannot be given back; it expires.
        with contextlib.suppress(DatabaseError):
            lease.release()


def take(name: str, holder: str, seconds: float, *, using: str = DEFAULT_DB_ALIAS) -> bool:
    """Take or renew a lease in one statement; returns whether it is now `holder`'s."""
    with transaction.atomic(using=using, durable=True), connections[using].cursor() as cursor:
        cursor.execute(_TAKE, {"name": name, "holder": holder, "seconds": seconds})
        return cursor.fetchone() is not None


def _who(name: str, using: str) -> str:
    lease = Lease.objects.using(using).filter(name=name).first()
    if lease is None:
        return f"The lease {name!r} was taken by another process just now: try again."
    return f"{lease.holder} holds the lease {name!r}; unless it is renewed, it ends at {lease.expires_at:%H:%M:%S} UTC."


def is_held(name: str, *, using: str = DEFAULT_DB_ALIAS) -> bool:
    """Whether some process holds the lease now."""
    return Lease.objects.using(using).filter(name=name, expires_at__gte=Now()).exists()
