"""Workers: a thread in each serving process, unless MEMORY_WORK_IN_SERVER is off, or `manage.py work`.

A worker looks every few seconds for users whose calls wait, and at once when its own process has accepted one. On
SIGTERM it hands its call back at the next portion of chunks, and others take it. It also deletes what nobody can read
any more: finished calls after their time, and once an hour, in one process or another, memories that have expired.
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db import connections

from keys import jobs
from keys.jobs import Job
from memory import metrics
from memory.operations import due, execution, idempotency, maintenance, queue
from memory.operations.queue import Operation
from memory.tracing import job_span
from memory.verbs.expiry import purge_expired

logger = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 5.0
PURGE_EVERY_SECONDS = 60.0
PURGE_EXPIRED_EVERY = timedelta(hours=1)
# How long a process that ends waits for its thread to hand its call back: within gunicorn's graceful timeout.
END_SECONDS = 20.0
HAND_BACK_SECONDS = 10.0
CANNOT_WORK = (DatabaseError, psycopg.Error, ImproperlyConfigured)


class Worker:
    """Does calls until it is stopped."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._wanted = threading.Event()
        self._served_last = ""
        self._purged_at = float("-inf")
        self._maintenance: threading.Thread | None = None

    def run(self) -> int:
        """Work, and wait for work, until `stop()`; returns how many attempts were made."""
        attempts = 0
        while not self._stopping.is_set():
            self._wanted.clear()
            if done := self.run_due():
                attempts += done
            else:
                self._wanted.wait(LOOK_EVERY_SECONDS)
        if self._maintenance is not None:
            self._maintenance.join(HAND_BACK_SECONDS)
        return attempts

    def run_until_empty(self) -> int:
        """Work until no call can be done now, or `stop()`; returns how many attempts were made."""
        attempts = 0
        while not self._stopping.is_set() and (done := self.run_due()):
            attempts += done
        if self._maintenance is not None:
            self._maintenance.join()
        return attempts

    def run_due(self) -> int:
        """Do one call of every user who has some waiting; returns how many were done.

        0 too when the database or the census cannot be reached: what waits is done later.
        """
        try:
            self._purge_now_and_then()
            self._maintain_when_asked()
            return sum(self._serve(user_hash) for user_hash in due.due_users(after=self._served_last))
        except execution.Stopping:
            return 0
        except CANNOT_WORK as away:
            logger.warning("no work is done", extra={"reason": type(away).__name__})
            return 0
        finally:
            connections.close_all()  # back into the pool: a worker that waits holds no connection

    def stop(self) -> None:
        """Hand back what is under way, and end. Returns at once."""
        self._stopping.set()
        self._wanted.set()

    def wake(self) -> None:
        """Look for work now."""
        self._wanted.set()

    def _serve(self, user_hash: str) -> int:
        if self._stopping.is_set():
            return 0
        self._served_last = user_hash
        claimed = queue.claim(user_hash)
        if claimed is None:
            return 0
        execution.execute(claimed, should_stop=self._stopping.is_set)
        return 1

    def _purge_now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._purged_at < PURGE_EVERY_SECONDS:
            return
        self._purged_at = now
        if purged := queue.purge():
            metrics.OPERATIONS_PURGED.inc(purged)
            logger.info("finished operations purged", extra={"operations": purged})
        metrics.REQUESTS_PURGED.inc(idempotency.purge())
        # What has expired is no answer since then: it is enough that one process deletes it now and then.
        if not jobs.ended_within(Job.PURGE, PURGE_EXPIRED_EVERY):
            with job_span("job purge"):
                purge_expired(progress=self._go_on)
            jobs.record(Job.PURGE)

    def _maintain_when_asked(self) -> None:
        """In a thread of its own: what takes hours must not keep calls waiting."""
        if (self._maintenance is None or not self._maintenance.is_alive()) and jobs.waiting():
            work = maintenance.do_waiting
            self._maintenance = threading.Thread(
                target=work, args=(self._stopping.is_set,), name="maintenance", daemon=True
            )
            self._maintenance.start()

    def _go_on(self, chunks: int) -> None:
        if self._stopping.is_set():
            raise execution.Stopping


# --- The thread of a serving process ---------------------------------------------------------------------------------
_serving = False
_running: tuple[int, Worker, threading.Thread] | None = None
_starting = threading.Lock()


def submit(*, user_id: str, body: Mapping[str, Any]) -> Operation:
    """Accept an index call, and have this process's thread look for it. Raises as `queue.accept` does."""
    operation = queue.accept(user_id=user_id, body=body)
    begin_working()
    if worker := _own():
        worker.wake()
    return operation


def begin_serving() -> None:
    """This process serves: `begin_working`, or the first call that it accepts, starts its thread."""
    global _serving
    _serving = True


def begin_working() -> None:
    """Start this process's thread, unless it runs, or this process is none that serves and works."""
    global _running
    with _starting:
        if not _serving or not settings.MEMORY_WORK_IN_SERVER or _own():
            return
        worker = Worker()
        thread = threading.Thread(target=worker.run, name="operations", daemon=True)
        _running = os.getpid(), worker, thread
        thread.start()
        atexit.register(end_working)


def end_working(seconds: float = END_SECONDS) -> None:
    """Have the thread hand back its call and end, and wait so long for it."""
    if (worker := _own()) and _running:
        worker.stop()
        _running[2].join(seconds)


def _own() -> Worker | None:
    """The worker of this process's thread; a forked child has none of its parent's."""
    return _running[1] if _running is not None and _running[0] == os.getpid() else None
