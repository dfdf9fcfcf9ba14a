"""Start, stop or describe the embedded Postgres."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from database import embedded_postgres


class Command(BaseCommand):
    help = "Start, stop or describe the embedded Postgres. It also starts by itself, on the first connection."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["start", "stop", "status"])

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DATABASE_EMBEDDED:
            raise CommandError("DATABASE_URL is set, so no embedded Postgres is in use.")
        try:
            self._act(options["action"])
        except embedded_postgres.EmbeddedPostgresError as error:
            raise CommandError(str(error)) from error

    def _act(self, action: str) -> None:
        folder = settings.EMBEDDED_POSTGRES_DIR
        if action == "start":
            embedded_postgres.ensure_running(folder)
        elif action == "stop":
            embedded_postgres.stop(folder)
        self.stdout.write(embedded_postgres.status(folder))
