"""Django's `migrate`, as the owner of the tables."""

from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate

from memory.tenancy.partitions import NotPartitionable, partition
from project.management.owner import command_as_owner


class Command(migrate.Command):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--partitions",
            type=int,
            metavar="N",
            help="afterwards make the tenant tables, still empty, into N hash partitions each (0: back to none)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        count = options.pop("partitions", None)
        with command_as_owner(options["database"]) as owner:
            super().handle(*args, **options)
            if count is not None:
                try:
                    partition(owner, count)
                except NotPartitionable as error:
                    raise CommandError(str(error)) from None
