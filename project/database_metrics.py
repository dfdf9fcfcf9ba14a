"""Gauges of what the database knows: tenants, keys, rotations, jobs. Every process would tell the same.

They are read by small statements when `/metrics` is asked, and then at most once a minute, however often that is. None
of them names a tenant, and their number does not grow with tenants.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from threading import Lock

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from database.roles import census
from keys import leases, nonces
from keys.held_keys import held_keys
from keys.key_ages import LONGEST
from keys.models import JobRecord, KeyRecord, Purpose, RotationRun
from keys.runs import LEASE
from memory.index.recipe import configured
from memory.models import MemoryOperation

logger = logging.getLogger(__name__)

FRESH_SECONDS = 60.0

TENANTS = """
SELECT count(*), coalesce(sum(chunk_count), 0)::bigint, count(*) FILTER (WHERE chunk_count > %(outgrown)s),
       count(*) FILTER (WHERE chunk_count > 0 AND recipe <> ALL (%(current)s))
FROM tenants
"""


OPERATIONS = """
SELECT state, count(*), extract(epoch FROM clock_timestamp() - min(created_at))::float8
FROM memory_operations WHERE state IN ('pending', 'running') GROUP BY state
"""


def _gauge(name: str, tells: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, tells)
    family.add_metric([], value)
    return family


def _tenants() -> Iterator[Metric]:
    with census() as cursor:
        cursor.execute(TENANTS, {"outgrown": settings.MEMORY_EXACT_SCAN_MAX, "current": ["", configured().as_text()]})
        tenants, chunks, outgrown, stale = cursor.fetchone() or (0, 0, 0, 0)
    yield _gauge("memory_tenants", "Users who have stored something.", tenants)
    yield _gauge("memory_chunks", "Chunks of all tenants.", chunks)
    yield _gauge("memory_tenants_outgrown", "Tenants that are answered from the graph.", outgrown)
    yield _gauge("memory_tenants_stale", "Tenants that were indexed by other settings: run reindex.", stale)


def _keys() -> Iterator[Metric]:
    seals = GaugeMetricFamily("keys_seals", "Values sealed under a key that is held.", labels=["key_id"])
    due = GaugeMetricFamily(
        "keys_rotation_due_seconds", "Until the current key is as old as the policy allows.", labels=["purpose"]
    )
    now = timezone.now()
    for purpose in Purpose:
        held = held_keys(purpose)
        for record in KeyRecord.objects.filter(purpose=purpose, key_id__in=held.all):
            if purpose == Purpose.ENCRYPTION:
                seals.add_metric([record.key_id], record.seals)
            if record.key_id == held.current:
                due.add_metric([purpose.value], (record.first_seen + LONGEST[purpose][0] - now).total_seconds())
    yield seals
    yield _gauge("keys_seals_refused_at", "Seals under one key beyond which the service refuses.", nonces.REFUSE_AT)
    yield due


def _rotations() -> Iterator[Metric]:
    done = GaugeMetricFamily("keys_rotation_rows_done", "Rows done in the phase of an open rotation.", labels=["kind"])
    total = GaugeMetricFamily("keys_rotation_rows_total", "Rows of the phase of an open rotation.", labels=["kind"])
    stopped = GaugeMetricFamily("keys_rotation_stopped", "1: an open rotation that nobody works on.", labels=["kind"])
    held = leases.is_held(LEASE)
    for run in RotationRun.objects.filter(state__in=RotationRun.OPEN):
        done.add_metric([run.kind], run.rows_done)
        total.add_metric([run.kind], run.rows_total)
        stopped.add_metric([run.kind], float(not held))
    yield from (done, total, stopped)


def _jobs() -> Iterator[Metric]:
    age = GaugeMetricFamily("keys_job_age_seconds", "Since a maintenance job last ended.", labels=["job"])
    failed = GaugeMetricFamily("keys_job_failed", "1: its last run found something, or failed.", labels=["job"])
    for record in JobRecord.objects.filter(finished_at__isnull=False).annotate(age=Now() - F("finished_at")):
        age.add_metric([record.name], record.age.total_seconds())
        failed.add_metric([record.name], float(not record.succeeded))
    yield from (age, failed)


def _operations() -> Iterator[Metric]:
    backlog = GaugeMetricFamily("memory_operations_unfinished", "Accepted index calls not done yet.", labels=["state"])
    with census() as cursor:
        cursor.execute(OPERATIONS)
        found = {state: (count, age) for state, count, age in cursor.fetchall()}
    for state in MemoryOperation.UNFINISHED:
        backlog.add_metric([state.value], found.get(state.value, (0, 0.0))[0])
    yield backlog
    oldest = max((age for _, age in found.values()), default=0.0)
    yield _gauge("memory_operations_oldest_seconds", "Age of the oldest accepted index call not done yet.", oldest)


PARTS: tuple[Callable[[], Iterable[Metric]], ...] = (_tenants, _keys, _rotations, _jobs, _operations)


class DatabaseCollector(Collector):
    """Asks each part in turn. What cannot be read is missing, and `memory_database_up` is 0."""

    def collect(self) -> Iterator[Metric]:
        up = True
        for part in PARTS:
            try:
                yield from list(part())
            except (DatabaseError, psycopg.Error, ImproperlyConfigured) as failure:
                up = False
                logger.warning("metrics of the database are missing", extra={"reason": type(failure).__name__})
        yield _gauge("memory_database_up", "1: these gauges could be read.", float(up))


class _Page:
    """The gauges as text, made anew when they are older than FRESH_SECONDS."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(DatabaseCollector())
        self._text, self._made_at = b"", float("-inf")

    def text(self) -> bytes:
        with self._lock:
            if self._clock() - self._made_at > FRESH_SECONDS:
                self._text, self._made_at = generate_latest(self._registry), self._clock()
            return self._text


page = _Page()
