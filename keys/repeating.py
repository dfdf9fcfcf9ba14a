"""`Repeating`: work that a serving process does now and then, in a thread of its own."""

import atexit
import logging
import os
import threading
from collections.abc import Callable

from django.db import connection

STOP_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Repeating:
    """Calls `work` at once and every `seconds` from a daemon thread, in this process and in its forked children.

    `at_end` is called once, when this is stopped, after the last `work`. Errors of `work` are logged and end nothing.
    """

    def __init__(
        self, name: str, work: Callable[[], object], seconds: float, at_end: Callable[[], object] = lambda: None
    ) -> None:
        self._name, self._work, self._seconds, self._at_end = name, work, seconds, at_end
        self._started = self._ended = False
        self._renew()

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._started:
            return
        self._started = True
        os.register_at_fork(after_in_child=self._go_on_in_child)
        atexit.register(self.stop)
        self._start_thread()

    def stop(self) -> None:
        """Call `work` no more. May be called twice, and where it never began."""
        self._stopped.set()
        ended = self._working.acquire(timeout=STOP_SECONDS)  # what is under way ends first, unless it takes long
        try:
            if self._started and not self._ended:
                self._ended = True
                self._at_end()
        finally:
            if ended:
                self._working.release()

    def _renew(self) -> None:
        self._stopped, self._working, self._ended = threading.Event(), threading.Lock(), False

    def _go_on_in_child(self) -> None:
        self._renew()
        self._start_thread()

    def _start_thread(self) -> None:
        threading.Thread(target=self._repeat, name=self._name, daemon=True).start()

    def _repeat(self) -> None:
        stopped, working = self._stopped, self._working
        while True:
            try:
                with working:
                    if not stopped.is_set():
                        self._work()
            except Exception as error:  # noqa: BLE001  (one failure must not end the repetition)
                logger.warning("%s: not done this time: %s", self._name, type(error).__name__)
            finally:
                # Back into the pool: a thread that sleeps holds no connection.
                connection.close()
            if stopped.wait(self._seconds):
                return
