"""Heartbeats: every 15 seconds each serving process records which keys it holds.

    heartbeat.start("wsgi")     # when serving starts; never in a management command

So a rotation can refuse to move rows to a key that some process lacks. A process that has recorded nothing for 60
seconds counts as gone.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from datetime import timedelta

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from keys.keyring import get_keyring
from keys.models import KeyRecord, ProcessHeartbeat, Purpose
from keys.process import process_id
from keys.repeating import Repeating

EVERY_SECONDS = 15.0
FORGOTTEN_AFTER = timedelta(seconds=60)

logger = logging.getLogger(__name__)
_role: str | None = None
_heartbeat: Repeating | None = None
_companions: list[Repeating] = []


def accompany(work: Repeating) -> None:
    """Start `work` whenever a process begins to report itself, and stop it first when that process ends."""
    _companions.append(work)


def start(role: str) -> None:
    """Report this process now and every 15 seconds from a daemon thread, and its forked children as well."""
    global _role, _heartbeat
    if _heartbeat is None:
        _role, _heartbeat = role, Repeating("key-heartbeat", lambda: beat(role), EVERY_SECONDS, at_end=_sign_off)
    for repeating in (_heartbeat, *_companions):
        repeating.start()


def stop() -> None:
    """Delete this process's record and write no more, so that a rotation need not wait until it counts as gone.

    For a server's hook at the exit of a worker; may be called twice, and in a process that never reported itself.
    """
    for companion in _companions:
        companion.stop()
    if _heartbeat is not None:
        _heartbeat.stop()


def _sign_off() -> None:
    logger.info("process ends", extra={"role": _role, "pid": os.getpid()})
    with contextlib.suppress(DatabaseError, ImproperlyConfigured), contextlib.closing(connection):
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
