"""Django's `flush`, as the owner of the tables: the application may not TRUNCATE."""

from typing import Any

from django.core.management.commands import flush

from project.management.owner import command_as_owner


class Command(flush.Command):
    def handle(self, **options: Any) -> None:
        # Cascading: knox's migrations make its own token table, which our swapped model hides from the list of tables.
        with command_as_owner(options["database"]):
            super().handle(**{**options, "allow_cascade": True})
