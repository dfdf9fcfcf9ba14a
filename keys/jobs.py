"""Maintenance jobs: when each last ended, who asks for one, and the progress of one that runs.

A request is a fact in the job's record. Whoever works (`memory.operations.maintenance`) takes it up under a lease:

    with jobs.running(Job.VERIFY, total=rows) as progress:
        for batch in …:
            progress.advance(len(batch))
        progress.succeeded, progress.message = True, "…"
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from enum import StrEnum

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from keys import leases
from keys.exceptions import JobRefused
from keys.leases import HeldLease
from keys.models import JobRecord
from keys.process import process_name

SAVE_EVERY_SECONDS = 1.0
MESSAGE_CHARACTERS = 2_000


class Job(StrEnum):
    """Jobs that are expected to run again and again."""

    VERIFY = "verify"
    BACKUP = "backup"
    PURGE = "purge"


REQUESTABLE = (Job.VERIFY, Job.PURGE)
"""The others run elsewhere: a backup is made by a role that no serving process has."""
REQUESTED, RUNNING, STOPPED, ENDED, NEVER = "requested", "running", "stopped", "ended", "never"


def ended_within(job: Job, age: timedelta) -> bool:
    """Whether the job has ended, anywhere, since `age` ago."""
    return JobRecord.objects.filter(name=job, finished_at__gt=Now() - age).exists()


def record(job: Job, *, succeeded: bool = True, message: str = "") -> None:
    """Note that a job has just ended, by the database's clock."""
    told = {"finished_at": Now(), "succeeded": succeeded, "message": message[:MESSAGE_CHARACTERS]}
    JobRecord.objects.update_or_create(name=job, defaults=told)


# --- Requests ---------------------------------------------------------------------------------------------------------
def request(job: Job, *, requested_by: str) -> None:
    """Ask for a job. Raises JobRefused when it is asked for or runs already, or is none of REQUESTABLE."""
    if job not in REQUESTABLE:
        raise JobRefused(f"A {job} is not made by a serving process.")
    with transaction.atomic():
        JobRecord.objects.get_or_create(name=job)
        record = JobRecord.objects.select_for_update().get(name=job)
        if state(record) in (REQUESTED, RUNNING):
            raise JobRefused(f"A {job} is {state(record)} already.")
        JobRecord.objects.filter(name=job).update(requested_at=Now(), requested_by=requested_by, started_at=None)


def state(record: JobRecord) -> str:
    """`requested`, `running`, `stopped` (its process died), `ended` or `never`."""
    if leases.is_held(_lease(record.name)):
        return RUNNING
    if _waits().filter(pk=record.pk).exists():
        return REQUESTED
    if record.started_at and (record.finished_at is None or record.finished_at < record.started_at):
        return STOPPED
    return ENDED if record.finished_at else NEVER


def waiting() -> list[Job]:
    """Jobs that are asked for and that nobody has begun."""
    return [Job(name) for name in _waits().values_list("name", flat=True)]


def _waits() -> QuerySet[JobRecord]:
    unanswered = Q(finished_at=None) | Q(finished_at__lt=F("requested_at"))
    return JobRecord.objects.filter(unanswered, requested_at__isnull=False, started_at=None)


def _lease(name: str) -> str:
    return f"job {name}"


# --- Work -------------------------------------------------------------------------------------------------------------
class JobProgress:
    """A job that runs. `advance` renews its lease and saves how far it is, at most once a second."""

    def __init__(self, job: Job, lease: HeldLease, clock: Callable[[], float] = time.monotonic) -> None:
        self.succeeded, self.message = False, "It ended with an error."
        self._job, self._lease, self._clock = job, lease, clock
        self._done, self._saved_at = 0, clock()

    def advance(self, rows: int) -> None:
        """Count rows as done. Not inside a transaction. Raises LeaseLost."""
        self._done += rows
        if self._clock() - self._saved_at >= SAVE_EVERY_SECONDS:
            self._saved_at = self._clock()
            self._lease.renew()
            self.save()

    def save(self) -> None:
        """Save how far it is."""
        JobRecord.objects.filter(name=self._job).update(done=self._done)


@contextlib.contextmanager
def running(job: Job, *, total: int = 0) -> Iterator[JobProgress]:
    """Do a job that waits, and record its end. An error ends it as failed and goes on; `hand_back` does neither.

    Raises LeaseTaken when another process does it, JobRefused when it waits no more.
    """
    with leases.hold(_lease(job)) as lease:
        begun = {"started_at": Now(), "started_by": process_name(), "done": 0, "total": total}
        if not _waits().filter(name=job).update(**begun):
            raise JobRefused(f"No {job} waits.")
        progress = JobProgress(job, lease)
        try:
            yield progress
        except HandedBack:
            JobRecord.objects.filter(name=job).update(started_at=None)
        except BaseException:
            record(job, succeeded=False, message=progress.message)
            raise
        else:
            progress.save()
            record(job, succeeded=progress.succeeded, message=progress.message)


class HandedBack(Exception):
    """Raised within `running`: the process ends, and another one shall begin the job anew."""
