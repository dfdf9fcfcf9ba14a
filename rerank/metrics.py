"""What the app tells Prometheus, and the process's own summary. No label or value ever holds text."""

import logging
import threading

from prometheus_client import Counter, Gauge, Histogram

from inference.engine.instruments import Instruments
from rerank.latency import LatencyWindow

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.08, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.5)

OUTCOMES = Counter("rerank_requests_total", "Rerank requests by outcome: reranked, empty, or why not.", ["outcome"])
SKIPPED = Counter("rerank_skipped_total", "Requests that kept the candidates' order, by reason.", ["reason"])
REORDERED = Counter("rerank_reordered_total", "Requests reranked, by model and fusion.", ["model", "fusion"])
LATENCY = Histogram(
    "rerank_latency_ms",
    "Milliseconds of a rerank that reached the model, or waited for it in vain.",
    buckets=[1000 * bound for bound in SECONDS],
)
QUEUE_SECONDS = Histogram("rerank_queue_seconds", "Time a request waited for its batch.", buckets=SECONDS)
TOKENISE_SECONDS = Histogram("rerank_tokenise_seconds", "Time to tokenise one request.", buckets=SECONDS)
FORWARD_SECONDS = Histogram("rerank_forward_seconds", "Time of one forward of the model.", buckets=SECONDS)
TOTAL_SECONDS = Histogram("rerank_seconds", "Time of a whole rerank, skipped ones included.", buckets=SECONDS)
BATCH_PAIRS = Histogram("rerank_batch_pairs", "Pairs in one forward.", buckets=(1, 2, 4, 8, 16, 24, 32))
BATCH_TOKENS = Histogram(
    "rerank_batch_tokens", "Tokens in one forward, padding included.", buckets=(64, 256, 1024, 2048, 4096, 8192, 16384)
)
QUEUE_DEPTH = Gauge("rerank_queue_depth", "Requests waiting in this process.", multiprocess_mode="livesum")
BREAKER_STATE = Gauge(
    "rerank_breaker_state", "0 closed, 1 half open, 2 open; the worst process.", multiprocess_mode="livemax"
)
BREAKER_OPENED = Counter("rerank_breaker_opened_total", "Times the breaker opened.")
MODEL_INFO = Gauge(
    "rerank_model_info",
    "1 for the model this process serves with.",
    ["model", "revision", "backend", "device", "dtype"],
    multiprocess_mode="livemax",
)

ENGINE = Instruments(
    queue_depth=QUEUE_DEPTH,
    queue_seconds=QUEUE_SECONDS,
    encode_seconds=TOKENISE_SECONDS,
    forward_seconds=FORWARD_SECONDS,
    batch_items=BATCH_PAIRS,
    batch_tokens=BATCH_TOKENS,
    breaker_state=BREAKER_STATE,
)

logger = logging.getLogger(__name__)

LATENCY_MS = LatencyWindow()
_process_outcomes: dict[str, int] = {}
_lock = threading.Lock()


def count_outcome(outcome: str) -> None:
    """One finished request: `reranked`, `empty` or a skip reason."""
    OUTCOMES.labels(outcome).inc()
    with _lock:
        _process_outcomes[outcome] = _process_outcomes.get(outcome, 0) + 1


def outcome_counts() -> dict[str, int]:
    """Requests of this process by outcome."""
    with _lock:
        return dict(_process_outcomes)


def note_opening(reason: str) -> None:
    """The breaker has opened."""
    BREAKER_OPENED.inc()
    logger.warning("The rerank breaker opened: %s", reason)
