"""Ids of new rows: UUID version 7 (RFC 9562), made in the process, so that one round trip writes a row to every table.

48 bits of Unix milliseconds, 12 bits of their fraction (the RFC's method 3), 62 random bits. Ids of one process rise,
also within one tick of the clock and while the clock stands or is set back.
"""

import os
import threading
import time
from collections.abc import Iterator
from struct import unpack
from uuid import UUID

_TICKS_PER_MS = 4096
_NS_PER_MS = 1_000_000
_VERSION, _VARIANT = 0x7 << 76, 0b10 << 62
_RANDOM_BITS = (1 << 62) - 1

clock = time.time_ns
_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """A new id, greater than every one that this process made before."""
    return next(uuid7s(1))


def uuid7s(count: int) -> Iterator[UUID]:
    """So many new ids, as if made one after the other, at half the cost."""
    first = _next_ticks(count)
    for tick, random in enumerate(unpack(f">{count}Q", os.urandom(8 * count)), first):
        milliseconds, fraction = divmod(tick, _TICKS_PER_MS)
        yield UUID(int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | random & _RANDOM_BITS)


def _next_ticks(count: int) -> int:
    """The first of so many ticks of the clock that no other call gets."""
    global _last
    with _lock:
        first = max(_last + 1, clock() * _TICKS_PER_MS // _NS_PER_MS)
        _last = first + count - 1
        return first
