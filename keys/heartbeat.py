"""Heartbeats: every 15 seconds each serving process records which keys it holds.

    heartbeat.start("wsgi")     # when serving starts; never in a management command

So a rotation can refuse to move rows to a key that some process lacks. A process that has recorded nothing for 60
seconds counts as gone.
"""

import atexit
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Sequence
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from keys.keyring import get_keyring
from keys.models import KeyRecord, ProcessHeartbeat, Purpose
from keys.process import process_id

EVERY_SECONDS = 15.0
FORGOTTEN_AFTER = timedelta(seconds=60)

logger = logging.getLogger(__name__)
_role: str | None = None
_stopped = threading.Event()
_writing = threading.Lock()


def start(role: str) -> None:
    """Report this process now and every 15 seconds from a daemon thread, and its forked children as well."""
    global _role
    first = _role is None
    _role = role
    _start_thread()
    if first:
        os.register_at_fork(after_in_child=_start_in_child)
        atexit.register(stop)


def stop() -> None:
    """Delete this process's record and write no more, so that a rotation need not wait until it counts as gone.

    For a server's hook at the exit of a worker; may be called twice, and in a process that never reported itself.
    """
    _stopped.set()
    # Under the lock: a heartbeat that is being written would bring the record back.
    with _writing, contextlib.suppress(DatabaseError, ImproperlyConfigured), contextlib.closing(connection):
        ProcessHeartbeat.objects.filter(process=process_id()).delete()


def beat(role: str) -> None:
    """Record this process and the key ids it holds; delete the records of processes that are gone."""
    keyring = get_keyring()
    facts = ProcessHeartbeat(
        process=process_id(),
        host=socket.gethostname(),
        pid=os.getpid(),
        role=role,
        sealing_key_id=keyring.sealing.key_id,
        encryption_key_ids=[key.key_id for key in keyring.opening],
        hmac_current_key_id=keyring.hmac_current.key_id,
        hmac_key_ids=[key.key_id for key in keyring.hashing],
        seen_at=Now(),
    )
    told = [
        field.name for field in ProcessHeartbeat._meta.concrete_fields if field.name not in ("process", "started_at")
    ]
    ProcessHeartbeat.objects.bulk_create([facts], update_conflicts=True, unique_fields=["process"], update_fields=told)
    record_sighting()
    ProcessHeartbeat.objects.filter(seen_at__lt=Now() - FORGOTTEN_AFTER).delete()


def record_sighting() -> None:
    """Record that every key of this process was seen now."""
    keyring = get_keyring()
    seen = [
        *(KeyRecord(key_id=key.key_id, purpose=Purpose.ENCRYPTION, last_seen=Now()) for key in keyring.opening),
        *(KeyRecord(key_id=key.key_id, purpose=Purpose.HMAC, last_seen=Now()) for key in keyring.hashing),
    ]
    # In one order everywhere, so that two processes never wait for each other's rows.
    KeyRecord.objects.bulk_create(
        sorted(seen, key=lambda record: record.key_id),
        update_conflicts=True,
        unique_fields=["key_id"],
        update_fields=["last_seen"],
    )


def live_processes() -> QuerySet[ProcessHeartbeat]:
    """The processes that reported within the last minute."""
    return ProcessHeartbeat.objects.filter(seen_at__gte=Now() - FORGOTTEN_AFTER)


def lacking(purpose: Purpose, key_ids: Sequence[str]) -> list[ProcessHeartbeat]:
    """Live processes that do not hold every one of these key ids."""
    return [process for process in live_processes() if not set(key_ids) <= set(process.holds(purpose))]


def with_another_current_key(purpose: Purpose, key_id: str) -> list[ProcessHeartbeat]:
    """Live processes whose new rows name another key: while they write, a rotation to `key_id` cannot finish."""
    return [process for process in live_processes() if process.current(purpose) != key_id]


def _start_in_child() -> None:
    global _stopped, _writing
    _stopped, _writing = threading.Event(), threading.Lock()
    _start_thread()


def _start_thread() -> None:
    if _role is not None:
        threading.Thread(target=_beat_until_stopped, args=(_role,), name="key-heartbeat", daemon=True).start()


def _beat_until_stopped(role: str) -> None:
    while True:
        try:
            with _writing:
                if not _stopped.is_set():
                    beat(role)
        except Exception as error:  # noqa: BLE001  (a heartbeat that fails must not end the heartbeats)
            logger.warning("Heartbeat not recorded: %s", type(error).__name__)
        finally:
            # Back into the pool: a thread that sleeps holds no connection.
            connection.close()
        if _stopped.wait(EVERY_SECONDS):
            return
