"""What is wrong, due or overdue, worst first. Thresholds are those of `ops/prometheus/alerts.yml`, over a day."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from keys.jobs import Job
from keys.models import Purpose
from keys.nonces import WARN_AT
from project.dashboard import counted, levels
from project.dashboard.facts import Facts
from project.dashboard.words import ago, count, day


class Level(IntEnum):
    """How bad something is: nothing to do, to be looked at soon, or now."""

    OK = 0
    AMBER = 1
    RED = 2


SOON = {Purpose.ENCRYPTION: timedelta(days=14), Purpose.HMAC: timedelta(days=30)}
OVERDUE = {Job.VERIFY: timedelta(days=8), Job.BACKUP: timedelta(hours=26), Job.PURGE: timedelta(hours=26)}
SILENT_SECONDS = 600.0
WAITED_SECONDS = 600.0
BREAKER_OPEN = 2


@dataclass(frozen=True)
class Line:
    """One sentence, how bad it is, the page that shows more, and the page of docs/runbooks/ that says what to do."""

    level: Level
    text: str
    link: str = ""
    runbook: str = ""


def attention(facts: Facts) -> list[Line]:
    """Everything that needs somebody; empty when all is well."""
    found = [*_integrity(facts), *_keys(facts), *_jobs(facts), *_traffic(facts), *_models(facts), *_stored(facts)]
    return sorted(found, key=lambda line: -line.level)


def budget_level(seals: int) -> Level:
    """Of 2^31 seals under one key, half of what random nonces allow: a half is amber, all of them red."""
    return Level(2 if seals > WARN_AT else 1 if seals > WARN_AT / 2 else 0)


def due_level(facts: Facts, purpose: Purpose) -> Level:
    """Amber some weeks before a key is as old as the policy allows, red from then on."""
    due = facts.due(purpose)
    if due is None or due - facts.now > SOON[purpose]:
        return Level.OK
    return Level.AMBER if due > facts.now else Level.RED


def job_level(facts: Facts, job: Job) -> Level:
    """Red: it found something, or a backup is overdue. Amber: overdue, or never done."""
    since, record = facts.since(job), facts.jobs.get(job)
    if record is not None and record.finished_at is not None and not record.succeeded:
        return Level.RED
    if since is None or since > OVERDUE[job]:
        return Level.RED if job == Job.BACKUP else Level.AMBER
    return Level.OK


def _integrity(facts: Facts) -> Iterator[Line]:
    if failures := facts.day(counted.INTEGRITY):
        yield Line(
            Level.RED, f"{count(failures, 'seal')} did not open in the last 24 hours.", "jobs", "integrity-failure"
        )
    if drifted := facts.day(counted.DRIFT):
        text = f"{count(drifted, 'row')} opened under another key than named in the last 24 hours."
        yield Line(Level.AMBER, text, "keys", "key-id-drift")


URGENT = {"older than": "key-overdue", "has sealed": "key-budget", "not held here": "integrity-failure"}
"""What the report of the keys says that cannot wait, and the page that says what to do."""


def _keys(facts: Facts) -> Iterator[Line]:
    for text in facts.report.attention:
        runbook = next((page for words, page in URGENT.items() if words in text), "")
        yield Line(Level.RED if runbook else Level.AMBER, text, "keys", runbook)
    for purpose in Purpose:
        due = facts.due(purpose)
        if due is not None and due_level(facts, purpose) == Level.AMBER:
            text = f"The {purpose.label} key is due for rotation on {day(due)}."
            yield Line(Level.AMBER, text, "keys", "key-overdue")
    for key in facts.report.keys:
        if key.purpose == Purpose.ENCRYPTION and budget_level(key.seals) == Level.AMBER:
            text = f"{key.key_id} has used {key.seals / WARN_AT:.0%} of its 2³¹ seals."
            yield Line(Level.AMBER, text, "keys", "key-budget")


def _jobs(facts: Facts) -> Iterator[Line]:
    for job, runbook in ((Job.BACKUP, "backup-overdue"), (Job.VERIFY, "verification-overdue"), (Job.PURGE, "")):
        level, since = job_level(facts, job), facts.since(job)
        record = facts.jobs.get(job)
        if level and record is not None and record.finished_at is not None and not record.succeeded:
            yield Line(level, f"The last {job} found something: {record.message}", "jobs", "integrity-failure")
        elif level:
            text = f"There was no {job} yet." if since is None else f"The last {job} was {ago(since)}."
            yield Line(level, text, "jobs", runbook)


def _traffic(facts: Facts) -> Iterator[Line]:
    errors, answers = facts.day(counted.ERRORS), facts.day(counted.ANSWERS)
    if errors > max(10, answers / 100):
        yield Line(Level.RED, f"{errors:,} of {answers:,} answers of the last 24 hours were errors.", "", "errors-high")
    if (sampled := facts.levels.get(levels.SAMPLED_AT)) is None:
        yield Line(Level.AMBER, "No process has recorded anything yet: figures come within a minute of serving.")
    elif facts.now.timestamp() - sampled > max(SILENT_SECONDS, 2 * facts.levels.get(levels.NEXT_AFTER, 0.0)):
        age = timedelta(seconds=facts.now.timestamp() - sampled)
        yield Line(Level.AMBER, f"Nothing was recorded since {ago(age)}: these figures are old.")


def _models(facts: Facts) -> Iterator[Line]:
    if facts.gauges.get("memory_embedding_breaker_state") == BREAKER_OPEN:
        text = "The embedding model fails: queries are answered by keywords alone."
        yield Line(Level.RED, text, "", "answers-degraded")
    if facts.gauges.get("rerank_breaker_state") == BREAKER_OPEN:
        text = "The reranker's breaker is open: answers keep their retrieval order."
        yield Line(Level.AMBER, text, "rerank", "rerank-breaker-open")
    if facts.levels.get(levels.OLDEST, 0.0) > WAITED_SECONDS:
        age = timedelta(seconds=facts.levels[levels.OLDEST])
        yield Line(Level.AMBER, f"An accepted call has waited since {ago(age)}.", "", "ingestion-stuck")


def _stored(facts: Facts) -> Iterator[Line]:
    if stale := round(facts.levels.get(levels.STALE, 0.0)):
        text = f"{count(stale, 'tenant')} to be indexed by today's settings: run manage.py reindex."
        yield Line(Level.AMBER, text, "tenants", "index-settings-stale")
