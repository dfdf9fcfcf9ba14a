"""Records when maintenance jobs last ended, for the metrics and for an operator who asks whether they still run."""

from enum import StrEnum

from django.db.models.functions import Now

from keys.models import JobRecord


class Job(StrEnum):
    """Jobs that are expected to run again and again."""

    VERIFY = "verify"
    BACKUP = "backup"
    PURGE = "purge"


def record(job: Job, *, succeeded: bool = True) -> None:
    """Note that a job has just ended, by the database's clock."""
    JobRecord.objects.update_or_create(name=job, defaults={"finished_at": Now(), "succeeded": succeeded})
