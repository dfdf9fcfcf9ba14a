"""Gauges of all processes of this server: models' queues and breakers. Other servers tell theirs on their own page."""

import os
from glob import glob

from prometheus_client import REGISTRY
from prometheus_client.multiprocess import MultiProcessCollector

WANTED = {
    "memory_embedding_queue_depth",
    "memory_embedding_breaker_state",
    "rerank_queue_depth",
    "rerank_breaker_state",
}


def read() -> dict[str, float]:
    """Queues as sums, breakers as their worst state (2: open); without those that no process has set."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if folder is None:
        families = REGISTRY.collect()
    else:
        families = MultiProcessCollector.merge(glob(os.path.join(folder, "gauge_live*.db")))
    return {sample.name: sample.value for family in families for sample in family.samples if sample.name in WANTED}
