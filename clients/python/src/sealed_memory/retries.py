"""When a request is sent again: what did not arrive, or was turned away for a while, and for how long to wait.

Every request that changes something carries an Idempotency-Key, the same on each attempt, so that one that was carried
out although its answer was lost is not carried out twice.
"""

import random
import uuid
from dataclasses import dataclass

from sealed_memory.errors import ServerError

SAFE = ("GET", "HEAD")
PASSING = (429, 502, 503, 504)


@dataclass(frozen=True)
class Retries:
    """How often and how long. A wait grows from `first_wait` seconds, doubling, with jitter, to `longest_wait` at most;
    the service's own Retry-After counts instead, if it is no longer than that."""

    attempts: int = 4
    first_wait: float = 0.25
    longest_wait: float = 10.0

    def wait(self, attempt: int, error: ServerError | None) -> float | None:
        """Seconds before the attempt after this one, the first being 1; None: give up."""
        if attempt >= self.attempts or (error is not None and error.status not in PASSING and not _in_flight(error)):
            return None
        asked = error.retry_after if error is not None else None
        if asked is not None:
            return asked if asked <= self.longest_wait else None
        ceiling = min(self.first_wait * 2 ** (attempt - 1), self.longest_wait)
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311


def _in_flight(error: ServerError) -> bool:
    """Whether an earlier attempt of the same request is still being carried out."""
    return error.status == 409 and error.retry_after is not None


def idempotency_key(method: str, given: str | None = None) -> dict[bytes, bytes]:
    """The header of one logical request, to be sent with each of its attempts; with the caller's own key, if any."""
    return {} if method in SAFE else {b"Idempotency-Key": (given or str(uuid.uuid4())).encode()}
