"""`manage.py rotate_hmac_key`: move every user to the current tenant HMAC key, verify, say what may be removed."""

import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys.exceptions import LeaseLost, LeaseTaken, MissingKeys, RotationRefused
from keys.models import RotationRun
from keys.process import operator
from keys.progress_bar import ProgressBar
from keys.runs import FailedRow
from memory.rotation.hmac_key import BATCH, plan, rotate


class Command(BaseCommand):
    help = (
        "Move every user to the hash that MEMORY_TENANT_HMAC_KEY makes: seals, vectors and keyword index are made anew."
        " Users are served throughout. Stopped anywhere, it goes on when it is run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        parser.add_argument("--batch", type=int, default=BATCH, help=f"rows per transaction ({BATCH})")
        parser.add_argument(
            "--skip-unreadable", action="store_true", help="move the others although some user ids do not open"
        )

    def handle(self, *args: Any, dry_run: bool, batch: int, skip_unreadable: bool, **options: Any) -> None:
        if batch < 1:
            raise CommandError("--batch is at least 1.")
        # A container is stopped by SIGTERM: leave the run interrupted, as Ctrl-C does.
        signal.signal(signal.SIGTERM, _stop)
        try:
            self._say_plan()
            if not dry_run:
                self._rotate(batch, skip_unreadable)
        except (RotationRefused, MissingKeys, LeaseTaken, LeaseLost) as refusal:
            raise CommandError(str(refusal)) from None
        except KeyboardInterrupt:
            raise CommandError("Interrupted. Run it again to go on where it stopped.", returncode=130) from None

    def _say_plan(self) -> None:
        planned = plan()
        for key_id, (tenants, chunks) in planned.totals.items():
            self.stdout.write(f"key {key_id}  {tenants:>9,} tenants  {chunks:>12,} chunks")
        self.stdout.write(
            f"{planned.tenants:,} tenants with {planned.rows:,} chunks are to move to {planned.to_key_id}."
        )

    def _rotate(self, batch: int, skip_unreadable: bool) -> None:
        with ProgressBar() as bar:
            run = rotate(started_by=operator(), batch=batch, skip_unreadable=skip_unreadable, report=bar.show)
        for failure in run.failures:
            self.stderr.write(str(FailedRow(**failure)))
        if run.state != RotationRun.State.FINISHED:
            raise CommandError(run.message)
        self.stdout.write(self.style.SUCCESS(run.message))


def _stop(*args: Any) -> None:
    raise KeyboardInterrupt
