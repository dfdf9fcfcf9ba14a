"""Percentiles of the last so many latencies of this process, for `get_rerank_metrics()`; Prometheus has the fleet's."""

import threading
from collections import deque

import numpy as np


class LatencyWindow:
    """The last `size` latencies in milliseconds. Thread-safe."""

    def __init__(self, size: int = 1024) -> None:
        self._lock = threading.Lock()
        self._values: deque[float] = deque(maxlen=size)

    def add(self, milliseconds: float) -> None:
        with self._lock:
            self._values.append(milliseconds)

    def summary(self) -> dict[str, float]:
        """p50 and p95 (values that were measured, not interpolated) and max; zeros before the first."""
        with self._lock:
            values = list(self._values) or [0.0]
        p50, p95 = np.percentile(values, [50, 95], method="inverted_cdf")
        return {"p50": float(p50), "p95": float(p95), "max": max(values)}

    def clear(self) -> None:
        with self._lock:
            self._values.clear()
