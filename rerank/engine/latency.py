"""Percentiles of the last so many latencies of this process, for `get_rerank_metrics()`; Prometheus has the fleet's."""

import math
import threading
from collections import deque
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of `values` at `share` in (0, 1]; 0.0 for no values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class LatencyWindow:
    """The last `size` latencies in milliseconds. Thread-safe."""

    def __init__(self, size: int = 1024) -> None:
        self._lock = threading.Lock()
        self._values: deque[float] = deque(maxlen=size)

    def add(self, milliseconds: float) -> None:
        with self._lock:
            self._values.append(milliseconds)

    def summary(self) -> dict[str, float]:
        with self._lock:
            values = list(self._values)
        return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "max": max(values, default=0.0)}

    def clear(self) -> None:
        with self._lock:
            self._values.clear()
