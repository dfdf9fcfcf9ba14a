"""This process's counters that the dashboard tells of, as a flat list of numbers by name.

prometheus_client hands out each process's own values, also where a scrape adds up the files of all processes. Every
process adds what it counted to the hour (`project.dashboard.recorder`), so the hours cover all processes on all
machines. A name is made of fixed words and a metric's fixed labels: there are some 150, whatever is asked.
"""

from collections.abc import Iterator

from django.contrib.auth.signals import user_login_failed
from django.dispatch import receiver
from django_prometheus.middleware import Metrics
from prometheus_client import Counter, Histogram
from prometheus_client.samples import Sample

from memory import metrics
from rerank import metrics as rerank_metrics

QUERY_VIEW = "memories-query"
ANSWERS, ERRORS, THROTTLED = "answers", "errors", "throttled"
INTEGRITY, DRIFT, CREDENTIALS, LOGINS = "integrity", "drift", "credentials", "logins"
DEGRADED, INDEXED = "degraded", "indexed"
RERANK = "rerank"
"""With an outcome behind it."""
STAGES = ("embed", "candidates", "open", "rerank", "context")
QUERY = "query"
"""Buckets are `query <le>` and `stage <stage> <le>`, cumulative as in Prometheus."""

QUERIES = "stage candidates +Inf"
"""Every query, through whichever door, looks for candidates once, and is in the last of the cumulative buckets."""

LOGIN_FAILURES = Counter("admin_login_failures_total", "Failed logins to the admin.")


@receiver(user_login_failed)
def _count_failed_login(**kwargs: object) -> None:
    LOGIN_FAILURES.inc()


def read() -> dict[str, float]:
    """What this process has counted since it began, by name."""
    counts: dict[str, float] = {}
    for name, value in _all():
        counts[name] = counts.get(name, 0.0) + value
    return counts


def stage(name: str) -> str:
    """The beginning of the names of a stage's buckets."""
    return f"stage {name}"


def _all() -> Iterator[tuple[str, float]]:
    yield from _total(INTEGRITY, metrics.INTEGRITY_FAILURES)
    yield from _total(DRIFT, metrics.KEY_ID_DRIFT)
    yield from _total(CREDENTIALS, metrics.AUTHENTICATION_FAILURES)
    yield from _total(LOGINS, LOGIN_FAILURES)
    yield from _total(THROTTLED, metrics.THROTTLED)
    yield from _total(DEGRADED, metrics.DEGRADED)
    yield from _total(INDEXED, metrics.CHUNKS_INDEXED)
    for sample in _samples(rerank_metrics.OUTCOMES, "_total"):
        yield f"{RERANK} {sample.labels['outcome']}", sample.value
    for sample in _samples(Metrics.get_instance().responses_by_status, "_total"):
        yield ANSWERS, sample.value
        if sample.labels["status"].startswith("5"):
            yield ERRORS, sample.value
    for sample in _samples(Metrics.get_instance().requests_latency_by_view_method, "_bucket"):
        if sample.labels["view"] == QUERY_VIEW:
            yield f"{QUERY} {sample.labels['le']}", sample.value
    for sample in _samples(metrics.STAGE_SECONDS, "_bucket"):
        if sample.labels["verb"] == "query":
            yield f"{stage(sample.labels['stage'])} {sample.labels['le']}", sample.value


def _total(name: str, counter: Counter) -> Iterator[tuple[str, float]]:
    for sample in _samples(counter, "_total"):
        yield name, sample.value


def _samples(metric: Counter | Histogram, suffix: str) -> Iterator[Sample]:
    for family in metric.collect():
        yield from (sample for sample in family.samples if sample.name.endswith(suffix))
