"""`manage.py record_backup`: note that a backup has just been made, so that the metrics can tell when none was."""

from typing import Any

from django.core.management.base import BaseCommand

from keys import jobs


class Command(BaseCommand):
    help = "Note that a backup has just been made and read back; run it after the dump, in the same script."

    def handle(self, *args: Any, **options: Any) -> None:
        jobs.record(jobs.Job.BACKUP)
        self.stdout.write("Noted.")
