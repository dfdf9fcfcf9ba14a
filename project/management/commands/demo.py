"""`manage.py demo`: what `make demo` runs once everything is installed and migrated."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from project import demo


class Command(BaseCommand):
    help = "Store and ask as two users over HTTP, then look at the row from outside. Uses accounts named demo-…"

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            demo.run(self._say)
        except RuntimeError as error:
            raise CommandError(str(error)) from None

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
