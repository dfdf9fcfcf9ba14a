"""The plots of the last 7 or 30 days."""

from django_prometheus.conf import PROMETHEUS_LATENCY_BUCKETS

from project.dashboard import counted, hours, levels
from project.dashboard.hours import Series
from project.dashboard.plots import Plot, draw

CHOICES = (7, 30)
QUERY_BUCKETS = tuple(hours.bucket_names(counted.QUERY, PROMETHEUS_LATENCY_BUCKETS).values())
OUTCOMES = ("reranked", "timeout", "breaker_open", "queue_full", "predicted_late", "error", "nan_scores")
RERANKED = f"{counted.RERANK} reranked"
NOT_RERANKED = tuple(f"{counted.RERANK} {outcome}" for outcome in OUTCOMES if outcome != "reranked")
REFUSED = {
    "server errors": counted.ERRORS,
    "throttled": counted.THROTTLED,
    "wrong credentials": counted.CREDENTIALS,
    "failed logins": counted.LOGINS,
}
NAMES = (
    counted.QUERIES,
    *QUERY_BUCKETS,
    RERANKED,
    *NOT_RERANKED,
    *REFUSED.values(),
    levels.CHUNKS,
    levels.TENANT_COUNT,
)


def plots(days: int) -> list[Plot]:
    """The plots; one statement reads them all."""
    series = hours.series(NAMES, days=days)
    per = "an hour" if series.step.total_seconds() == 3600 else f"in {series.step.total_seconds() / 3600:.0f} hours"
    return [
        draw(f"Queries {per}", series, {"queries": _counts(series, counted.QUERIES)}),
        draw(
            "Time of a query",
            series,
            {"p50": _percentiles(series, 0.5), "p95": _percentiles(series, 0.95)},
            unit=" ms",
        ),
        draw(f"Refused or failed {per}", series, {label: _counts(series, name) for label, name in REFUSED.items()}),
        draw(
            f"Answers by the reranker {per}",
            series,
            {"reranked": _counts(series, RERANKED), "kept their order": _counts(series, *NOT_RERANKED)},
            link="rerank",
        ),
        draw("Chunks", series, {"chunks": _levels(series, levels.CHUNKS)}, link="tenants"),
        draw("Tenants", series, {"tenants": _levels(series, levels.TENANT_COUNT)}, link="tenants"),
    ]


def _counts(series: Series, *names: str) -> list[float | None]:
    return [sum(series.value(name, point) or 0.0 for name in names) for point in range(series.points)]


def _levels(series: Series, name: str) -> list[float | None]:
    return [series.value(name, point) for point in range(series.points)]


def _percentiles(series: Series, share: float) -> list[float | None]:
    """In milliseconds."""
    found = []
    for point in range(series.points):
        counts = {name: series.value(name, point) or 0.0 for name in QUERY_BUCKETS}
        seconds = hours.percentile(hours.buckets(counted.QUERY, PROMETHEUS_LATENCY_BUCKETS, counts), share)
        found.append(None if seconds is None else 1000 * seconds)
    return found
