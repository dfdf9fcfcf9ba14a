"""An ONNX Runtime session on the CPU. `run` may be called from several threads at once."""

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

TICK = 0.05  # seconds between two looks at the clock
IDLE_TICKS = 200  # then the watch sleeps until somebody runs again


def cpu_session(graph: bytes, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` of a serialised model, on `threads` threads a call."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads win a millisecond on an idle machine and lose far more beside a web server's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run_within(session: Any, feed: Mapping[str, np.ndarray], seconds: float) -> np.ndarray:
    """The first output of a session. Raises TimeoutError after about so many seconds, between two operators."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    with _watch.ending(options, seconds):
        try:
            return np.asarray(session.run(None, feed, options)[0])
        except Exception as error:
            if options.terminate:
                raise TimeoutError("the model was not done in time") from error
            raise


class _Watch:
    """A thread that ends overdue runs. It looks at the clock while there are runs, so that no run has to wake it."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._runs: dict[int, tuple[Any, float]] = {}
        self._thread: threading.Thread | None = None
        self._asleep = True

    @contextmanager
    def ending(self, options: Any, seconds: float) -> Iterator[None]:
        """Set `options.terminate` after so many seconds, unless the code inside has ended."""
        with self._wake:
            self._runs[id(options)] = (options, time.monotonic() + seconds)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="inference-watch", daemon=True)
                self._thread.start()
            if self._asleep:
                self._wake.notify()
        try:
            yield
        finally:
            with self._wake:
                del self._runs[id(options)]

    def _look(self) -> None:
        idle = 0
        with self._wake:
            while True:
                now = time.monotonic()
                for options, deadline in self._runs.values():
                    if now > deadline:
                        options.terminate = True
                idle = 0 if self._runs else idle + 1
                self._asleep = idle > IDLE_TICKS
                self._wake.wait(None if self._asleep else TICK)
                self._asleep = False


_watch = _Watch()


def _forget() -> None:
    """A child of a fork has no thread that looks."""
    global _watch
    _watch = _Watch()


os.register_at_fork(after_in_child=_forget)
