"""Print the SQL that prepares a Postgres of your own."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from database import setup_sql


class Command(BaseCommand):
    help = (
        "Print the psql script that a superuser runs once to prepare a Postgres of your own: roles, database, grants."
    )
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--print-sql", action="store_true", required=True, help="Print it; nothing is run.")
        parser.add_argument("--database", default="memory", help="Name of the database to create (default: memory).")

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(setup_sql.script(options["database"]), ending="")
