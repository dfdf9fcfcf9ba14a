"""How much of its callers' work may stand before an engine at once.

A caller with a thousand passages hands them over a slice at a time, so the engine's own queue stays short however many
callers there are. This counts what they have announced.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inference.engine.jobs import Refusal, Refused


class Backlog:
    """Items that are announced and not done, at most `limit()` of them. Thread-safe."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self.items = 0

    @contextmanager
    def announced(self, items: int) -> Iterator[None]:
        """Count `items` while the code inside works on them. Raises Refused (queue_full) where others have announced
        so many that these are too many; alone, any number is taken."""
        with self._lock:
            if self.items and self.items + items > self._limit():
                raise Refused(Refusal.QUEUE_FULL)
            self.items += items
        try:
            yield
        finally:
            with self._lock:
                self.items -= items
