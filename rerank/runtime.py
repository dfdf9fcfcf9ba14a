"""The one engine of this process: loaded once, in the background, never across a fork."""

import asyncio
import atexit
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from enum import StrEnum

from django.conf import settings

from rerank import config, metrics
from rerank.backends import Backend
from rerank.cross_encoder import LoadedCrossEncoder
from rerank.engine.breaker import CircuitBreaker
from rerank.engine.engine import Engine, EngineLimits
from rerank.loading import load_backend
from rerank.outcomes import ModelUnavailable, Skipped, SkipReason

logger = logging.getLogger(__name__)

RETRY_AFTER = 60.0  # seconds after which a missing model is looked for again, when somebody asks


class Status(StrEnum):
    IDLE = "idle"
    LOADING = "loading"
    READY = "ready"
    UNAVAILABLE = "unavailable"


class Runtime:
    """Thread-safe. `load` and `clock` can be replaced by a test."""

    def __init__(self, load: Callable[[], Backend] = load_backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._load = load
        self._clock = clock
        self._changing = threading.Lock()  # guards the fields, held for moments
        self._loading = threading.Lock()  # held while a model loads
        self._failed_at = 0.0
        self.status = Status.IDLE
        self.detail = ""
        self.load_seconds = 0.0
        self.engine: Engine | None = None
        self._cross_encoder: LoadedCrossEncoder | None = None
        self._loaded: Future[None] = Future()  # of the last load that began in the background

    def begin_loading(self) -> None:
        """Load in a background thread, unless that is done, under way, or failed a moment ago."""
        with self._changing:
            failed_lately = self.status is Status.UNAVAILABLE and self._clock() - self._failed_at < RETRY_AFTER
            if self.status in (Status.LOADING, Status.READY) or failed_lately:
                return
            self.status = Status.LOADING
            self._loaded = Future()
            self._loaded.set_running_or_notify_cancel()  # nobody who waits can cancel it
        threading.Thread(target=self._load_quietly, name="rerank-loader", daemon=True).start()

    def serving_engine(self) -> Engine:
        """The engine, at once; raises Skipped (loading, model_unavailable) and sees that loading has begun."""
        engine = self.engine
        if engine is not None:
            return engine
        self.begin_loading()
        if self.status is Status.UNAVAILABLE:
            raise Skipped(SkipReason.MODEL_UNAVAILABLE)
        raise Skipped(SkipReason.LOADING)

    async def wait_while_loading(self, seconds: float) -> None:
        """Begin to load where nobody has, and wait for the end of it for at most so long. Raises nothing."""
        if self.engine is None:
            self.begin_loading()
        if self.status is Status.LOADING:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.wrap_future(self._loaded)

    def load_now(self) -> Engine:
        """The engine, loading it in this thread when need be. Raises ModelUnavailable."""
        with self._loading:
            if self.engine is not None:
                return self.engine
            started = self._clock()
            try:
                backend = self._load()
            except ModelUnavailable as error:
                self._note_failure(str(error))
                raise
            except Exception as error:
                self._note_failure(f"Loading failed: {type(error).__name__}")
                raise ModelUnavailable(self.detail) from error
            self.engine = self._start_engine(backend)
            self.load_seconds = self._clock() - started
            self.status, self.detail = Status.READY, ""
            logger.info("Reranker ready: %s on %s in %.1f s", backend.name, backend.device, self.load_seconds)
            return self.engine

    def cross_encoder(self) -> LoadedCrossEncoder:
        """The one scorer of this runtime, loading when need be. Raises ModelUnavailable."""
        backend = self.load_now().backend
        with self._changing:
            if self._cross_encoder is None:
                self._cross_encoder = LoadedCrossEncoder(backend)
            return self._cross_encoder

    def stop(self) -> None:
        if self.engine is not None:
            self.engine.stop()

    def _load_quietly(self) -> None:
        try:
            self.load_now()
        except ModelUnavailable as error:
            logger.warning("Reranking is off, answers keep their retrieval order: %s", error)
        finally:
            if not self._loaded.done():
                self._loaded.set_result(None)

    def _note_failure(self, detail: str) -> None:
        self._failed_at = self._clock()
        self.status, self.detail = Status.UNAVAILABLE, detail

    def _start_engine(self, backend: Backend) -> Engine:
        limits = config.token_limits()
        engine = Engine(
            backend,
            CircuitBreaker(config.breaker_policy(), on_open=_note_opening),
            EngineLimits(
                pairs=settings.RERANK_BATCH_SIZE,
                tokens=settings.RERANK_BATCH_TOKENS,
                queue=settings.RERANK_QUEUE_SIZE,
                pair_tokens=limits.pair,
                query_tokens=limits.query,
            ),
        )
        engine.start()
        model = backend.model
        metrics.MODEL_INFO.labels(model.name, model.revision, backend.name, backend.device, backend.dtype).set(1)
        return engine


def _note_opening(reason: str) -> None:
    metrics.BREAKER_OPENED.inc()
    logger.warning("The rerank breaker opened: %s", reason)


_runtime = Runtime()


def current() -> Runtime:
    return _runtime


def reset(runtime: Runtime | None = None) -> Runtime:
    """Stop what runs and begin anew (tests, a change of settings). Returns the new runtime."""
    global _runtime
    _runtime.stop()
    _runtime = runtime or Runtime()
    return _runtime


def _after_fork() -> None:
    """Threads and locks do not survive a fork: the child begins with nothing and loads for itself."""
    global _runtime
    _runtime = Runtime()


os.register_at_fork(after_in_child=_after_fork)
# A daemon thread inside native code while the interpreter is torn down can abort the process: end it before.
atexit.register(lambda: _runtime.stop())
