"""`manage.py rotate_hmac_key`: move every user to the current tenant HMAC key, verify, say what may be removed."""

from argparse import ArgumentParser
from typing import Any

from keys.movers import Mover
from keys.rotation import plan
from keys.rotation_command import RotationCommand
from memory.rotation.hmac_key import HMACKeyMover


class Command(RotationCommand):
    help = (
        "Move every user to the hash that MEMORY_TENANT_HMAC_KEY makes: seals, vectors and keyword index are made anew."
        " Users are served throughout. Stopped anywhere, it goes on when it is run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--skip-unreadable", action="store_true", help="move the others although some user ids do not open"
        )

    def mover(self, *, skip_unreadable: bool = False, **options: Any) -> Mover:
        return HMACKeyMover(skip_unreadable=skip_unreadable)

    def say_plan(self, mover: Mover) -> None:
        planned = plan(mover)
        for count in planned.counts:
            self.stdout.write(f"key {count.key_id}  {count.tenants:>9,} tenants  {count.writes:>12,} chunks")
        self.stdout.write(
            f"{planned.tenants_left:,} tenants with {planned.to_do:,} chunks are to move to {planned.to_key_id}."
        )
