"""`RotationCommand`: what `rotate_encryption_key` and `rotate_hmac_key` have in common."""

import signal
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connection

from keys import leases
from keys.exceptions import LeaseLost, LeaseTaken, MissingKeys, RotationCancelled, RotationRefused
from keys.models import Purpose, RotationRun
from keys.movers import Mover
from keys.pace import Pace
from keys.process import operator
from keys.progress_bar import ProgressBar
from keys.retry_while_away import is_away, retry_while_away
from keys.rotation import plan, rotate
from keys.runs import LEASE, FailedRow, open_run

WATCH_SECONDS = 2.0


class RotationCommand(BaseCommand):
    """Plans or runs the rotation of `mover()`; says what failed, and exits with 130 when it was interrupted."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        parser.add_argument("--batch", type=int, default=Pace.batch, help=f"rows per transaction ({Pace.batch})")
        parser.add_argument("--max-rate", type=float, default=0.0, help="rows per second at most (no limit)")
        parser.add_argument("--watch", action="store_true", help="wait for rotations that the admin requests")

    def mover(self, **options: Any) -> Mover:
        """What moves the rows."""
        raise NotImplementedError

    def handle(self, *args: Any, batch: int, max_rate: float, **options: Any) -> None:
        if batch < 1 or max_rate < 0:
            raise CommandError("--batch is at least 1 and --max-rate not negative.")
        # A container is stopped by SIGTERM: leave the run interrupted, as Ctrl-C does.
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            self.work(self.mover(**options), Pace(batch=batch, max_rate=max_rate), **options)
        except (RotationRefused, RotationCancelled, MissingKeys, LeaseTaken, LeaseLost) as refusal:
            raise CommandError(str(refusal)) from None
        except KeyboardInterrupt:
            raise CommandError("Interrupted. Run it again to go on where it stopped.", returncode=130) from None

    def work(self, mover: Mover, pace: Pace, *, dry_run: bool, watch: bool, **options: Any) -> None:
        """Plan, rotate, or wait for rotations that are asked for."""
        if dry_run:
            self.say_plan(mover)
        elif watch:
            self._watch(mover, pace)
        else:
            self.rotate(mover, pace)

    def say_plan(self, mover: Mover) -> None:
        """Say what a rotation would do."""
        planned = plan(mover)
        for count in planned.counts:
            self.stdout.write(
                f"{count.table:<16} key {count.key_id}  {count.rows:>12,} rows  {count.tenants:>9,} tenants"
            )
        if planned.rows_left:
            self.stdout.write(
                f"{planned.to_do:,} of {planned.total:,} rows would be re-sealed under {planned.to_key_id}."
            )
        else:
            self.stdout.write(f"All {planned.total:,} rows name key {planned.to_key_id}: they would be verified.")

    def rotate(self, mover: Mover, pace: Pace, only: int | None = None) -> None:
        """Rotate; `only` the run that was asked for, if that is given. Raises CommandError when the run failed."""
        planned = plan(mover)
        self.stdout.write(
            f"Rotating to key {planned.to_key_id}: {planned.to_do:,} of {planned.total:,} rows are under another key."
        )
        with ProgressBar() as bar:
            run = rotate(mover, started_by=operator(), pace=pace, report=bar.show, only=only)
        for failure in run.failures:
            self.stderr.write(str(FailedRow(**failure)))
        if run.state != RotationRun.State.FINISHED:
            raise CommandError(run.message)
        self.stdout.write(self.style.SUCCESS(run.message))

    def _watch(self, mover: Mover, pace: Pace) -> None:
        self.stdout.write("Waiting for requested rotations. Ctrl-C ends this.")
        while True:
            run = retry_while_away(_request_to_take_up, mover.purpose)
            if run is not None:
                self._attempt(run, mover, pace)
            time.sleep(WATCH_SECONDS)

    def _attempt(self, run: RotationRun, mover: Mover, pace: Pace) -> None:
        try:
            self.rotate(mover, pace, only=run.pk)
        except (RotationRefused, MissingKeys) as refusal:
            # Shown in the admin, where it was asked for; tried again until the reason is gone.
            refused = RotationRun.objects.filter(pk=run.pk).exclude(message=str(refusal))
            retry_while_away(refused.update, message=str(refusal))
        except (CommandError, LeaseTaken, LeaseLost, RotationCancelled) as error:
            self.stderr.write(str(error))
        except DatabaseError as error:
            if not is_away(error):
                raise
            self.stderr.write("The database is away; the rotation goes on when it is back.")
            connection.close()


def _request_to_take_up(kind: Purpose) -> RotationRun | None:
    run = open_run(kind)
    return None if run is None or leases.is_held(LEASE) else run


def _interrupt(*args: Any) -> None:
    raise KeyboardInterrupt
