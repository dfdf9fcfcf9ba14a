"""The one engine of a model in a process: loaded once, in the background, never across a fork."""

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
from typing import Any, Generic, TypeVar

from inference.engine.backend import B
from inference.engine.engine import Engine

logger = logging.getLogger(__name__)

RETRY_AFTER = 60.0  # seconds after which a missing model is looked for again, when somebody asks


class Status(StrEnum):
    IDLE = "idle"
    LOADING = "loading"
    READY = "ready"
    UNAVAILABLE = "unavailable"


class Runtime(Generic[B]):
    """Thread-safe. `load` gives a started engine; `clock` can be replaced by a test.

    `retry_after`: seconds in which a load that failed is not tried again.

    `unavailable`: the error that says why there is no model. `load` may raise it, and any other becomes one.
    """

    def __init__(
        self,
        load: Callable[[], Engine[B]],
        unavailable: type[Exception],
        *,
        name: str,
        retry_after: float = RETRY_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._unavailable = unavailable
        self._name = name
        self._retry_after = retry_after
        self._clock = clock
        self._changing = threading.Lock()  # guards the fields, held for moments
        self._loading = threading.Lock()  # held while a model loads
        self._failed_at = 0.0
        self.status = Status.IDLE
        self.detail = ""
        self.load_seconds = 0.0
        self.engine: Engine[B] | None = None
        self._loaded: Future[None] = Future()  # of the last load that began in the background

    def begin_loading(self) -> None:
        """Load in a background thread, unless that is done, under way, or failed a moment ago."""
        with self._changing:
            if self.status in (Status.LOADING, Status.READY) or self.has_failed_lately():
                return
            self.status = Status.LOADING
            self._loaded = Future()
            self._loaded.set_running_or_notify_cancel()  # nobody who waits can cancel it
        threading.Thread(target=self._load_quietly, name=f"{self._name}-loader", daemon=True).start()

    def has_failed_lately(self) -> bool:
        """Whether a load failed within the last `retry_after` seconds."""
        return self.status is Status.UNAVAILABLE and self._clock() - self._failed_at < self._retry_after

    def wait_while_loading(self, seconds: float) -> None:
        """Begin to load where nobody has, and wait for the end of it for at most so long. Raises nothing."""
        if self.engine is None:
            self.begin_loading()
        if self.status is Status.LOADING:
            with suppress(TimeoutError):
                self._loaded.result(seconds)

    async def wait_while_loading_async(self, seconds: float) -> None:
        """The same without holding up an event loop."""
        if self.engine is None:
            self.begin_loading()
        if self.status is Status.LOADING:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.wrap_future(self._loaded)

    def load_now(self) -> Engine[B]:
        """The engine, loading it in this thread when need be. Raises the error for no model."""
        with self._loading:
            if self.engine is not None:
                return self.engine
            started = self._clock()
            try:
                engine = self._load()
            except self._unavailable as error:
                self._note_failure(str(error))
                raise
            except Exception as error:
                self._note_failure(f"Loading failed: {type(error).__name__}")
                raise self._unavailable(self.detail) from error
            self.engine = engine
            self.load_seconds = self._clock() - started
            self.status, self.detail = Status.READY, ""
            logger.info("The %s is ready after %.1f s", self._name, self.load_seconds)
            return engine

    def stop(self) -> None:
        if self.engine is not None:
            self.engine.stop()

    def _load_quietly(self) -> None:
        try:
            self.load_now()
        except self._unavailable as error:
            logger.warning("The %s cannot be used: %s", self._name, error)
        finally:
            if not self._loaded.done():
                self._loaded.set_result(None)

    def _note_failure(self, detail: str) -> None:
        self._failed_at = self._clock()
        self.status, self.detail = Status.UNAVAILABLE, detail


R = TypeVar("R", bound=Runtime[Any])


class PerProcess(Generic[R]):
    """A model's runtime in this process. Threads and locks do not survive a fork: a child begins with a new one."""

    def __init__(self, make: Callable[[], R]) -> None:
        self._make = make
        self._runtime = make()
        os.register_at_fork(after_in_child=self._forget)
        # A daemon thread inside native code while the interpreter is torn down can abort the process: end it before.
        atexit.register(lambda: self._runtime.stop())

    def current(self) -> R:
        return self._runtime

    def reset(self, runtime: R | None = None) -> R:
        """Stop what runs and begin anew (tests, a change of settings). Returns the new runtime."""
        self._runtime.stop()
        self._runtime = runtime or self._make()
        return self._runtime

    def _forget(self) -> None:
        self._runtime = self._make()
