"""`manage.py rotate_encryption_key`: re-seal every row under the sealing key, verify, and say what may be removed."""

import signal
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys import leases
from keys.exceptions import LeaseLost, LeaseTaken, MissingKeys, RotationRefused
from keys.models import Purpose, RotationRun
from keys.process import operator
from keys.progress_bar import ProgressBar
from keys.rotation import Pace, plan, rotate
from keys.runs import LEASE, FailedRow, open_run

WATCH_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Re-seal every row under MEMORY_ENCRYPTION_KEY, open every row with it alone, and say which key may be removed."
        " Stopped anywhere, it goes on from there when it is run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        parser.add_argument("--batch", type=int, default=500, help="rows per transaction (500)")
        parser.add_argument("--max-rate", type=float, default=0.0, help="rows per second at most (no limit)")
        parser.add_argument("--watch", action="store_true", help="wait for rotations that the admin requests")

    def handle(self, *args: Any, dry_run: bool, batch: int, max_rate: float, watch: bool, **options: Any) -> None:
        if batch < 1 or max_rate < 0:
            raise CommandError("--batch is at least 1 and --max-rate not negative.")
        # A container is stopped by SIGTERM: leave the run interrupted, as Ctrl-C does.
        signal.signal(signal.SIGTERM, _stop)
        pace = Pace(batch=batch, max_rate=max_rate)
        try:
            if dry_run:
                self._say_plan()
            elif watch:
                self._watch(pace)
            else:
                self._rotate(pace)
        except (RotationRefused, MissingKeys, LeaseTaken, LeaseLost) as refusal:
            raise CommandError(str(refusal)) from None
        except KeyboardInterrupt:
            raise CommandError("Interrupted. Run it again to go on where it stopped.", returncode=130) from None

    def _say_plan(self) -> None:
        planned = plan()
        for count in planned.counts:
            self.stdout.write(
                f"{count.table:<16} key {count.key_id}  {count.rows:>12,} rows  {count.tenants:>9,} tenants"
            )
        if planned.to_do:
            self.stdout.write(
                f"{planned.to_do:,} of {planned.total:,} rows would be re-sealed under {planned.to_key_id}."
            )
        else:
            self.stdout.write(f"All {planned.total:,} rows name key {planned.to_key_id}: they would be verified.")

    def _rotate(self, pace: Pace) -> None:
        planned = plan()
        self.stdout.write(
            f"Rotating to key {planned.to_key_id}: {planned.to_do:,} of {planned.total:,} rows are under another key."
        )
        with ProgressBar() as bar:
            run = rotate(started_by=operator(), pace=pace, report=bar.show)
        for failure in run.failures:
            self.stderr.write(str(FailedRow(**failure)))
        if run.state != RotationRun.State.FINISHED:
            raise CommandError(run.message)
        self.stdout.write(self.style.SUCCESS(run.message))

    def _watch(self, pace: Pace) -> None:
        self.stdout.write("Waiting for requested rotations. Ctrl-C ends this.")
        while True:
            run = open_run(Purpose.ENCRYPTION)
            if run is not None and not leases.is_held(LEASE):
                self._attempt(run, pace)
            time.sleep(WATCH_SECONDS)

    def _attempt(self, run: RotationRun, pace: Pace) -> None:
        try:
            self._rotate(pace)
        except (RotationRefused, MissingKeys) as refusal:
            # Shown in the admin, where it was asked for; tried again until the reason is gone.
            RotationRun.objects.filter(pk=run.pk).exclude(message=str(refusal)).update(message=str(refusal))
        except (CommandError, LeaseTaken, LeaseLost) as error:
            self.stderr.write(str(error))


def _stop(*args: Any) -> None:
    raise KeyboardInterrupt
