"""Start, stop or describe the embedded Postgres, or say how to reach it."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from database import embedded_postgres
from database.embedded_postgres.layout import ROLES


class Command(BaseCommand):
    help = (
        "Start, stop or describe the embedded Postgres, or print the connection URL of one of its roles. "
        "It also starts by itself, on the first connection."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=["start", "stop", "status", "url"])
        parser.add_argument("--role", choices=list(ROLES), default="app", help="whose URL (default: app)")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DATABASE_EMBEDDED:
            raise CommandError("DATABASE_URL is set, so no embedded Postgres is in use.")
        try:
            self._act(options["action"], options["role"])
        except embedded_postgres.EmbeddedPostgresError as error:
            raise CommandError(str(error)) from error

    def _act(self, action: str, role: str) -> None:
        folder = settings.EMBEDDED_POSTGRES_DIR
        if action in ("start", "url"):
            embedded_postgres.ensure_running(folder)
        elif action == "stop":
            embedded_postgres.stop(folder)
        if action == "url":
            self.stdout.write("postgresql://{user}@/{dbname}?host={host}".format(**embedded_postgres.dsn(folder, role)))
            return
        self.stdout.write(embedded_postgres.status(folder))
