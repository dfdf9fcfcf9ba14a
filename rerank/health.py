"""How the reranker is, for `/readyz` and the admin. Reads what is known; never waits for the model."""

from django.conf import settings

from rerank import flag, runtime


def state(*, ask: bool = True) -> str:
    """One word: disabled, idle, loading, unavailable, ok, breaker_open, breaker_half_open or dead.

    Without `ask` the database is not asked for the switch: its last known position counts.
    """
    served = runtime.current()
    enabled = flag.is_enabled() if ask else settings.RERANK_ENABLED and flag.switch.last_known()
    if not enabled:
        return "disabled"
    if served.engine is None:
        return served.status.value
    if not served.engine.is_alive():
        return "dead"
    breaker = served.engine.breaker.snapshot().state.value
    return "ok" if breaker == "closed" else f"breaker_{breaker.removeprefix('breaker_')}"


def report() -> dict[str, object]:
    """State, what to do about it, device, breaker and heartbeat."""
    served = runtime.current()
    found: dict[str, object] = {"state": state(), "detail": served.detail}
    engine = served.engine
    if engine is None:
        return found
    breaker = engine.breaker.snapshot()
    return found | {
        "detail": served.detail or breaker.reason,
        "backend": engine.backend.name,
        "device": engine.backend.device,
        "model": engine.backend.model.name,
        "load_seconds": round(served.load_seconds, 2),
        "breaker": {"state": breaker.state.value, "slow": breaker.slow, "failed": breaker.failed, "seen": breaker.seen},
        "heartbeat": engine.heartbeat(),
    }
