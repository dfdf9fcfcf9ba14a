"""Django's `createcachetable`, as the owner of the tables: the application may not create one."""

from typing import Any

from django.core.management.commands import createcachetable

from project.management.owner import command_as_owner


class Command(createcachetable.Command):
    def handle(self, *tablenames: Any, **options: Any) -> None:
        with command_as_owner(options["database"]):
            super().handle(*tablenames, **options)
