"""All that one look at the dashboard reads, each once, by statements whose cost does not grow with tenants."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from keys import leases
from keys.held_keys import held_keys
from keys.jobs import Job
from keys.key_ages import LONGEST
from keys.models import JobRecord, Purpose, RotationRun
from keys.runs import LEASE
from keys.status import KeyFacts, KeyReport, key_report
from project.dashboard import hours, server_gauges
from project.dashboard.hours import Sums
from rerank import flag, health


@dataclass(frozen=True)
class Facts:
    """`report`: keys with rows as last counted. `runs`: open rotations. `being_rotated`: somebody works on one.
    `gauges`: of this server's processes. `rerank`: of the process that answers."""

    now: datetime
    sums: Sums
    levels: Mapping[str, float]
    report: KeyReport
    runs: list[RotationRun]
    being_rotated: bool
    jobs: Mapping[str, JobRecord]
    gauges: Mapping[str, float]
    rerank: Mapping[str, object]
    switch_is_on: bool

    def day(self, name: str) -> int:
        """A count of the last 24 hours."""
        return round(self.sums.day.get(name, 0.0))

    def current_key(self, purpose: Purpose) -> KeyFacts:
        """The key that new rows name."""
        current = held_keys(purpose).current
        return next(key for key in self.report.keys if key.key_id == current and key.purpose == purpose)

    def due(self, purpose: Purpose) -> datetime | None:
        """When the current key is as old as the policy allows; None until a process has reported it."""
        first_seen = self.current_key(purpose).first_seen
        return None if first_seen is None else first_seen + LONGEST[purpose][0]

    def since(self, job: Job) -> timedelta | None:
        """How long ago a job last ended; None when it never did."""
        record = self.jobs.get(job)
        return None if record is None or record.finished_at is None else self.now - record.finished_at


def gather() -> Facts:
    """Everything as of now. Raises a database error."""
    return Facts(
        now=timezone.now(),
        sums=hours.sums(),
        levels=hours.last_levels(),
        report=key_report(count=False),
        runs=list(RotationRun.objects.filter(state__in=RotationRun.OPEN)),
        being_rotated=leases.is_held(LEASE),
        jobs={record.name: record for record in JobRecord.objects.all()},
        gauges=server_gauges.read(),
        rerank=health.report(),
        switch_is_on=flag.read_switch(),
    )
