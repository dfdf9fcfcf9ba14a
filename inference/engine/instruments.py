"""What an engine tells Prometheus, in the metrics of the model that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a server names the folder of its processes' metrics before it is imported
    from prometheus_client import Gauge, Histogram


@dataclass(frozen=True, slots=True)
class Instruments:
    """The metrics of one model's engine; times in seconds."""

    queue_depth: Gauge
    queue_seconds: Histogram
    encode_seconds: Histogram
    forward_seconds: Histogram
    batch_items: Histogram
    batch_tokens: Histogram
    breaker_state: Gauge
