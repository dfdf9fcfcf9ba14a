"""Records when maintenance jobs last ended, for the metrics and for an operator who asks whether they still run."""

from datetime import timedelta
from enum import StrEnum

from django.db.models.functions import Now

from keys.models import JobRecord


class Job(StrEnum):
    """Jobs that are expected to run again and again."""

    VERIFY = "verify"
    BACKUP = "backup"
    PURGE = "purge"


def ended_within(job: Job, age: timedelta) -> bool:
    """Whether the job has ended, anywhere, since `age` ago."""
    return JobRecord.objects.filter(name=job, finished_at__gt=Now() - age).exists()


def record(job: Job, *, succeeded: bool = True) -> None:
    """Note that a job has just ended, by the database's clock."""
    JobRecord.objects.update_or_create(name=job, defaults={"finished_at": Now(), "succeeded": succeeded})
