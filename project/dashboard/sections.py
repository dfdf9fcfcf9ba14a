"""The page's groups of numbers, each number with what is behind it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from django_prometheus.conf import PROMETHEUS_LATENCY_BUCKETS

from keys.jobs import Job
from keys.models import Purpose, RotationRun
from keys.nonces import WARN_AT
from memory.metrics import STAGE_BOUNDS
from project.dashboard import counted, hours, levels
from project.dashboard.attention import Level, budget_level, due_level, job_level
from project.dashboard.facts import Facts
from project.dashboard.words import ago, count, day, milliseconds, span

BREAKER = {0: "closed", 1: "half open", 2: "open"}


@dataclass(frozen=True)
class Row:
    """A number and its name; `note` in small print; `link` as in `page.LINKS`."""

    label: str
    value: str
    level: Level = Level.OK
    note: str = ""
    link: str = ""


@dataclass(frozen=True)
class Section:
    """A group of rows, for those who hold `permission`; with a table where rows have several numbers each."""

    title: str
    link: str
    rows: list[Row]
    permission: str = ""
    headers: list[str] = field(default_factory=list)
    table: list[list[str]] = field(default_factory=list)


def sections(facts: Facts) -> list[Section]:
    """All groups, in the order of the page."""
    return [
        _traffic(facts),
        _refused(facts),
        _integrity(facts),
        _keys(facts),
        _rotation(facts),
        _reranker(facts),
        _embedding(facts),
        _stored(facts),
        _jobs(facts),
    ]


def _traffic(facts: Facts) -> Section:
    whole = hours.buckets(counted.QUERY, PROMETHEUS_LATENCY_BUCKETS, facts.sums.day)
    table = [["whole request", *_percentiles(whole)]]
    for stage in counted.STAGES:
        found = hours.buckets(counted.stage(stage), STAGE_BOUNDS, facts.sums.day)
        table.append([stage, *_percentiles(found)])
    this_hour = round(facts.sums.hour.get(counted.QUERIES, 0.0))
    rows = [
        Row("Queries, 24 hours", f"{facts.day(counted.QUERIES):,}", note=f"{this_hour:,} in this hour"),
        Row("Chunks indexed, 24 hours", f"{facts.day(counted.INDEXED):,}"),
    ]
    return Section("Queries", "", rows, headers=["Stage", "p50", "p95"], table=table)


def _percentiles(cumulative: dict[float, float]) -> list[str]:
    return [milliseconds(hours.percentile(cumulative, share)) for share in (0.5, 0.95)]


def _refused(facts: Facts) -> Section:
    errors = facts.day(counted.ERRORS)
    share = errors > max(10, facts.day(counted.ANSWERS) / 100)
    return Section(
        "Refused or failed, 24 hours",
        "",
        [
            Row("Server errors", f"{errors:,}", Level.RED if share else Level.OK, "answers with 5xx"),
            Row("Throttled", f"{facts.day(counted.THROTTLED):,}", note="answers with 429"),
            Row("Wrong credentials", f"{facts.day(counted.CREDENTIALS):,}", note="calls of the API", link="tokens"),
            Row("Failed logins", f"{facts.day(counted.LOGINS):,}", note="to the admin", link="attempts"),
        ],
    )


def _integrity(facts: Facts) -> Section:
    failures, drifted = facts.day(counted.INTEGRITY), facts.day(counted.DRIFT)
    return Section(
        "Integrity, 24 hours",
        "jobs",
        [
            Row("Seals that did not open", f"{failures:,}", Level.RED if failures else Level.OK),
            Row("Under another key than named", f"{drifted:,}", Level.AMBER if drifted else Level.OK, link="keys"),
        ],
    )


def _keys(facts: Facts) -> Section:
    rows = []
    for purpose, what in ((Purpose.ENCRYPTION, "seals"), (Purpose.HMAC, "hashes users")):
        key, due, level = facts.current_key(purpose), facts.due(purpose), due_level(facts, purpose)
        held = count(key.tenants, "user") if purpose == Purpose.HMAC else count(key.row_count, "row")
        rows.append(Row(f"{key.key_id} {what}", held, link="keys"))
        if key.first_seen and due:
            note = f"{span(facts.now - key.first_seen)} old"
            rows.append(Row("Rotation due", day(due), level, note))
    others = [key for key in facts.report.keys if key.state in ("accepted", "unknown") and key.row_count]
    rows += [Row(f"{key.key_id} {key.state}", f"{key.row_count:,} rows", Level.AMBER, link="keys") for key in others]
    sealing = facts.current_key(Purpose.ENCRYPTION)
    share = f"{sealing.seals / WARN_AT:.2%}"
    rows.append(Row("Nonce budget used", share, budget_level(sealing.seals), f"{sealing.seals:,} of 2³¹ seals"))
    counted_at = facts.report.counted_at
    note = f"Rows counted {ago(facts.now - counted_at)}" if counted_at else "Rows not counted yet"
    return Section("Keys", "keys", [*rows, Row("", "", note=note)], "keys.view_keyrecord")


def _rotation(facts: Facts) -> Section:
    rows = [row for run in facts.runs for row in _run(facts, run)] or [Row("Open rotations", "none")]
    return Section("Rotation", "runs", rows, "keys.view_rotationrun")


def _run(facts: Facts, run: RotationRun) -> Iterator[Row]:
    stopped = run.state == RotationRun.State.RUNNING and not facts.being_rotated
    level = Level.AMBER if stopped or run.state == RotationRun.State.INTERRUPTED else Level.OK
    yield Row(run.get_kind_display(), "stopped" if stopped else run.get_state_display(), level, run.message)
    if run.rows_total:
        yield Row(run.phase or "begun", f"{run.share:.1%}", note=f"{run.rows_done:,} of {run.rows_total:,} rows")
    if run.seconds_left is not None and not stopped:
        left = span(timedelta(seconds=run.seconds_left))
        yield Row("Time left", left, note=f"of this pass, at {run.rate:,.0f} rows/s")


def _reranker(facts: Facts) -> Section:
    outcomes = {
        name.removeprefix(f"{counted.RERANK} "): round(value)
        for name, value in facts.sums.day.items()
        if name.startswith(f"{counted.RERANK} ")
    }
    breaker = facts.gauges.get("rerank_breaker_state")
    rows = [
        Row("State", str(facts.rerank["state"]), note="of the process that answers"),
        Row("Switch", "on" if facts.switch_is_on else "off", link="rerank"),
    ]
    if breaker is not None:
        rows.append(Row("Breaker", BREAKER[int(breaker)], Level.AMBER if breaker else Level.OK, "on this server"))
    ordered = sorted(outcomes.items(), key=lambda outcome: -outcome[1])
    rows += [Row(outcome.replace("_", " "), f"{count:,}", note="24 hours") for outcome, count in ordered if count]
    return Section("Reranker", "rerank", rows, "rerank.view_switchchange")


def _embedding(facts: Facts) -> Section:
    waiting, oldest = round(facts.levels.get(levels.WAITING, 0.0)), facts.levels.get(levels.OLDEST, 0.0)
    degraded = facts.day(counted.DEGRADED)
    breaker = facts.gauges.get("memory_embedding_breaker_state")
    note = f"the oldest for {span(timedelta(seconds=oldest))}" if waiting else ""
    rows = [
        Row("Waiting for the model", f"{facts.gauges.get('memory_embedding_queue_depth', 0):,.0f}", note="this server"),
        Row("Accepted calls not done", f"{waiting:,}", Level.AMBER if oldest > 600 else Level.OK, note),
        Row("Answered by keywords alone", f"{degraded:,}", Level.AMBER if degraded else Level.OK, "24 hours"),
    ]
    if breaker is not None:
        rows.append(Row("Breaker", BREAKER[int(breaker)], Level.RED if breaker == 2 else Level.OK, "on this server"))
    return Section("Embedding and ingestion", "", rows)


def _stored(facts: Facts) -> Section:
    def level(name: str) -> str:
        return f"{facts.levels[name]:,.0f}" if name in facts.levels else "–"

    stale = facts.levels.get(levels.STALE, 0.0)
    sampled = facts.levels.get(levels.SAMPLED_AT)
    note = f"counted {ago(timedelta(seconds=facts.now.timestamp() - sampled))}" if sampled else "not counted yet"
    rows = [
        Row("Tenants", level(levels.TENANT_COUNT), note=note, link="tenants"),
        Row("Chunks", level(levels.CHUNKS)),
        Row("Outgrown", level(levels.OUTGROWN), note="answered from the graph"),
        Row("Stale index settings", level(levels.STALE), Level.AMBER if stale else Level.OK),
    ]
    return Section("Stored", "tenants", rows, "memory.view_tenant")


def _jobs(facts: Facts) -> Section:
    rows = []
    for job in (Job.VERIFY, Job.BACKUP, Job.PURGE):
        since, record = facts.since(job), facts.jobs.get(job)
        text = "never" if since is None else ago(since)
        rows.append(Row(f"Last {job}", text, job_level(facts, job), record.message if record else ""))
    return Section("Maintenance", "jobs", rows)
