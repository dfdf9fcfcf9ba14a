"""The pace of a rotation: rows a transaction, and rows a second."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

SMALLEST_BATCH = 20


@dataclass(frozen=True)
class Pace:
    """How many rows one transaction takes, and how many rows a second at most (0: as fast as it goes)."""

    batch: int = 500
    max_rate: float = 0.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @property
    def rows(self) -> int:
        """Rows of a batch: with a limit on the rate, small enough to spread over the second."""
        return min(self.batch, max(SMALLEST_BATCH, int(self.max_rate / 10))) if self.max_rate else self.batch

    def hold_back(self, rows: int, started: float) -> None:
        """Sleep until `rows` since `started` are no more than the rate allows."""
        if self.max_rate and (ahead := started + rows / self.max_rate - self.clock()) > 0:
            self.sleep(ahead)
