"""The cross-encoder's engine in this process: loaded once, in the background, never across a fork."""

import threading
import time
from collections.abc import Callable

from inference.engine.breaker import CircuitBreaker
from inference.engine.engine import Engine
from inference.engine.runtime import PerProcess, Status
from inference.engine.runtime import Runtime as ModelRuntime
from rerank import config, metrics
from rerank.backends import Backend
from rerank.cross_encoder import LoadedCrossEncoder
from rerank.loading import load_backend
from rerank.outcomes import ModelUnavailable, Skipped, SkipReason
from rerank.scoring import make_engine

__all__ = ["Runtime", "Status", "current", "reset"]


class Runtime(ModelRuntime[Backend]):
    """Thread-safe. `load` and `clock` can be replaced by a test."""

    def __init__(self, load: Callable[[], Backend] = load_backend, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(lambda: _start(load()), ModelUnavailable, name="rerank", clock=clock)
        self._making = threading.Lock()
        self._cross_encoder: LoadedCrossEncoder | None = None

    def serving_engine(self) -> Engine[Backend]:
        """The engine, at once; raises Skipped (loading, model_unavailable) and sees that loading has begun."""
        engine = self.engine
        if engine is not None:
            return engine
        self.begin_loading()
        if self.status is Status.UNAVAILABLE:
            raise Skipped(SkipReason.MODEL_UNAVAILABLE)
        raise Skipped(SkipReason.LOADING)

    def cross_encoder(self) -> LoadedCrossEncoder:
        """The one scorer of this runtime, loading when need be. Raises ModelUnavailable."""
        backend = self.load_now().backend
        with self._making:
            if self._cross_encoder is None:
                self._cross_encoder = LoadedCrossEncoder(backend)
            return self._cross_encoder


def _start(backend: Backend) -> Engine[Backend]:
    engine = make_engine(backend, CircuitBreaker(config.breaker_policy(), on_open=metrics.note_opening))
    engine.start()
    model = backend.model
    metrics.MODEL_INFO.labels(model.name, model.revision, backend.name, backend.device, backend.dtype).set(1)
    return engine


_runtime = PerProcess(Runtime)
current, reset = _runtime.current, _runtime.reset
