"""`manage.py distribute`: print what spreads the tenants over a Citus cluster, and say whether it can be run here."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from memory.index.dry_run import refused_statement
from memory.tenancy.citus import Precondition, preconditions, statements


class Command(BaseCommand):
    help = "Check what Citus needs and print the SQL that distributes the tenant tables. Runs none of it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--print-sql", action="store_true", help="print the SQL alone, whatever the checks say")

    def handle(self, *args: Any, print_sql: bool, **options: Any) -> None:
        missing = 0 if print_sql else self._check()
        if not missing:
            self.stdout.write("\n".join(statements()))
            return
        raise CommandError(
            f"{missing} preconditions are missing, so this database cannot be distributed yet."
            " --print-sql shows the statements."
        )

    def _check(self) -> int:
        with connection.cursor() as cursor:
            found = list(preconditions(cursor))
        refused = refused_statement()
        remedy = f"The database refuses {refused}"
        found.append(Precondition("the writers' own statements run as the application's role", refused is None, remedy))
        for precondition in found:
            mark = "ok     " if precondition.holds else "MISSING"
            self.stdout.write(f"{mark} {precondition.name}")
            if not precondition.holds:
                self.stdout.write(f"        {precondition.remedy}")
        return sum(not precondition.holds for precondition in found)
