"""Ids of new rows: UUID version 7 (RFC 9562), made in the process, so that one round trip writes a row to every table.

48 bits of Unix milliseconds, 12 bits of their fraction (the RFC's method 3), 62 random bits. Ids of one process rise,
also within one tick of the clock and while the clock stands or is set back.
"""

import os
import threading
import time
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
    tick = _next_tick()
    milliseconds, fraction = divmod(tick, _TICKS_PER_MS)
    random = int.from_bytes(os.urandom(8), "big") & _RANDOM_BITS
    return UUID(int=milliseconds << 80 | _VERSION | fraction << 64 | _VARIANT | random)


def _next_tick() -> int:
    global _last
    with _lock:
        _last = max(_last + 1, clock() * _TICKS_PER_MS // _NS_PER_MS)
        return _last
