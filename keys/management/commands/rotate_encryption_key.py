"""`manage.py rotate_encryption_key`: re-seal every row under the sealing key, verify, and say what may be removed."""

from typing import Any

from keys.models import Purpose
from keys.movers import Mover, mover_of
from keys.rotation_command import RotationCommand


class Command(RotationCommand):
    help = (
        "Re-seal every row under MEMORY_ENCRYPTION_KEY, open every row with it alone, and say which key may be removed."
        " Stopped anywhere, it goes on from there when it is run again."
    )

    def mover(self, **options: Any) -> Mover:
        return mover_of(Purpose.ENCRYPTION)
