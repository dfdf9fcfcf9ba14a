"""Measures call times and computes their percentiles."""

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

import numpy as np


def percentile(values: Sequence[float] | np.ndarray, percent: float) -> float:
    """The smallest measured value that `percent` percent of the values do not exceed (no interpolation)."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), percent, method="inverted_cdf"))


def latencies(values: Sequence[float] | np.ndarray, *percents: int) -> dict[str, float]:
    """{"p50": …, "p95": …}, in the unit of the values."""
    return {f"p{percent}": percentile(values, percent) for percent in percents}


def nanoseconds(call: Callable[[], Any], repeats: int) -> np.ndarray:
    """How long each of `repeats` calls took, int64 (repeats,), the clock's own cost included."""
    times = np.empty(repeats, dtype=np.int64)
    for i in range(repeats):
        started = perf_counter_ns()
        call()
        times[i] = perf_counter_ns() - started
    return times
