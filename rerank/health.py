"""How the reranker is, for `/readyz` and the admin. Reads what is known; never waits for the model."""

import logging
import threading
import time
from concurrent.futures import Future

from django.conf import settings

from rerank import config, flag, runtime
from rerank.engine.engine import Engine
from rerank.outcomes import Skipped

logger = logging.getLogger(__name__)

GOLDEN_EVERY = 30.0  # seconds between two golden pairs
GOLDEN_TIMEOUT = 2.0


def state() -> str:
    """One word: disabled, idle, loading, unavailable, ok, breaker_open, breaker_half_open or dead."""
    served = runtime.current()
    if not flag.is_enabled():
        return "disabled"
    if served.engine is None:
        return served.status.value
    if not served.engine.is_alive():
        return "dead"
    breaker = served.engine.breaker.snapshot().state.value
    return "ok" if breaker == "closed" else f"breaker_{breaker.removeprefix('breaker_')}"


def report() -> dict[str, object]:
    """State, what to do about it, device, breaker, heartbeat and the last golden pair. Sends a golden pair on its way
    every half minute."""
    served = runtime.current()
    found: dict[str, object] = {"state": state(), "detail": served.detail}
    engine = served.engine
    if engine is None:
        return found
    golden.check(engine)
    breaker = engine.breaker.snapshot()
    return found | {
        "detail": served.detail or breaker.reason,
        "backend": engine.backend.name,
        "device": engine.backend.device,
        "model": settings.RERANK_MODEL,
        "load_seconds": round(served.load_seconds, 2),
        "breaker": {"state": breaker.state.value, "slow": breaker.slow, "failed": breaker.failed, "seen": breaker.seen},
        "heartbeat": engine.heartbeat(),
        "golden_pair": golden.verdict,
    }


class GoldenPair:
    """Runs the golden pair through queue and model like any request, without anybody waiting for it."""

    def __init__(self) -> None:
        self.verdict = "unknown"
        self._sent_at = float("-inf")
        self._lock = threading.Lock()

    def check(self, engine: Engine) -> None:
        """Send it, unless it is off or was sent a moment ago. A wrong order opens the breaker for good."""
        pair = config.golden_pair()
        with self._lock:
            if pair is None or time.monotonic() - self._sent_at < GOLDEN_EVERY:
                return
            self._sent_at = time.monotonic()
        query, relevant, irrelevant = pair
        try:
            job = engine.submit(query, [relevant, irrelevant], GOLDEN_TIMEOUT)
        except Skipped as skip:
            self.verdict = f"not run: {skip.reason.value}"
            return
        job.future.add_done_callback(lambda future: self._judge(engine, future))

    def _judge(self, engine: Engine, future: "Future[tuple[float, ...]]") -> None:
        if future.cancelled() or future.exception() is not None:
            self.verdict = "failed"
            return
        good, bad = future.result()
        if good <= bad:
            logger.error("The reranker began to rank RERANK_GOLDEN the wrong way round; it stays off until a restart")
            engine.breaker.trip("golden pair came out wrong", hold=True)
        self.verdict = "ok" if good > bad else "wrong order"


golden = GoldenPair()
