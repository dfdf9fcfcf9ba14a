"""For tests of what happens when two connections want the same rows."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import connection, connections

T = TypeVar("T")


def in_thread(work: Callable[..., T], **arguments: object) -> T:
    """Run `work` and close what the thread has connected."""
    try:
        return work(**arguments)
    finally:
        connections.close_all()


def wait_until_one_waits() -> None:
    """Return once a statement of some other connection waits for a lock."""
    for _ in range(1000):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            if cursor.fetchone():
                return
        time.sleep(0.01)
    raise AssertionError("Nothing waits.")


def wait_until_done_or_waiting(thread: threading.Thread) -> None:
    """Return once a thread has ended, or some other connection's statement waits for a lock."""
    for _ in range(1000):
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            if cursor.fetchone() or not thread.is_alive():
                return
        thread.join(0.01)
    raise AssertionError("It neither ends nor waits.")
