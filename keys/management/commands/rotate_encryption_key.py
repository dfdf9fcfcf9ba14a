"""`manage.py rotate_encryption_key`: re-seal every row under the sealing key, verify, and say what may be removed."""

import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import DatabaseError, connection

from keys import leases
from keys.exceptions import LeaseLost, LeaseTaken, MissingKeys, RotationRefused
from keys.models import Purpose, RotationRun
from keys.movers import Mover, mover_of
from keys.pace import Pace
from keys.retry_while_away import is_away, retry_while_away
from keys.rotation_command import RotationCommand
from keys.runs import LEASE, open_run

WATCH_SECONDS = 2.0


class Command(RotationCommand):
    help = (
        "Re-seal every row under MEMORY_ENCRYPTION_KEY, open every row with it alone, and say which key may be removed."
        " Stopped anywhere, it goes on from there when it is run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--watch", action="store_true", help="wait for rotations that the admin requests")

    def mover(self, **options: Any) -> Mover:
        return mover_of(Purpose.ENCRYPTION)

    def work(self, mover: Mover, pace: Pace, *, dry_run: bool, watch: bool = False, **options: Any) -> None:
        if watch and not dry_run:
            self._watch(mover, pace)
        else:
            super().work(mover, pace, dry_run=dry_run)

    def _watch(self, mover: Mover, pace: Pace) -> None:
        self.stdout.write("Waiting for requested rotations. Ctrl-C ends this.")
        while True:
            run = retry_while_away(_request_to_take_up)
            if run is not None:
                self._attempt(run, mover, pace)
            time.sleep(WATCH_SECONDS)

    def _attempt(self, run: RotationRun, mover: Mover, pace: Pace) -> None:
        try:
            self.rotate(mover, pace)
        except (RotationRefused, MissingKeys) as refusal:
            # Shown in the admin, where it was asked for; tried again until the reason is gone.
            refused = RotationRun.objects.filter(pk=run.pk).exclude(message=str(refusal))
            retry_while_away(refused.update, message=str(refusal))
        except (CommandError, LeaseTaken, LeaseLost) as error:
            self.stderr.write(str(error))
        except DatabaseError as error:
            if not is_away(error):
                raise
            self.stderr.write("The database is away; the rotation goes on when it is back.")
            connection.close()


def _request_to_take_up() -> RotationRun | None:
    run = open_run(Purpose.ENCRYPTION)
    return None if run is None or leases.is_held(LEASE) else run
