"""`manage.py complete_row_macs`: give rows from before there were MACs theirs."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from keys.retry_while_away import retry_while_away
from memory.index.completed_macs import accept_rows, complete_tenant
from memory.tenancy import census

NOT_NOW = (
    "MEMORY_ACCEPT_ROWS_WITHOUT_MAC is false, so every row is taken to have a MAC: one without was changed by somebody,"
    " and would be made right here. Set it to true for the upgrade, as docs/howto/upgrade.md says."
)


class Command(BaseCommand):
    help = (
        "After an upgrade, give every row from before there were MACs its MACs, and every tenant the digest of its set"
        " of rows, while serving. What is there is taken for right: run verify_integrity first. A run that was stopped"
        " is simply run again. --accept records the digest of one tenant's rows as they are now."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--accept",
            metavar="TENANT",
            help="a tenant, by at least 8 hex of its hash as verify_integrity names it, whose rows are right although"
            " they are not those of their digest: after you have looked, and restored what was missing",
        )

    def handle(self, *args: Any, accept: str | None, **options: Any) -> None:
        if accept is not None:
            self._accept(accept)
            return
        if not settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC:
            raise CommandError(NOT_NOW)
        tenants = rows = unreadable = 0
        with tqdm(desc="macs", unit=" rows", disable=None, mininterval=0.5) as bar:
            for tenant in retry_while_away(census.tenants_without_row_set):
                done = retry_while_away(lambda: complete_tenant(tenant, progress=bar.update))  # noqa: B023
                tenants, rows, unreadable = tenants + done.recorded, rows + done.rows, unreadable + done.unreadable
        self.stdout.write(f"{rows:,} rows got MACs, {tenants:,} tenants the digest of their set of rows.")
        if unreadable:
            raise CommandError(f"{unreadable:,} rows do not open and got none: `verify_integrity` names them.")
        self.stdout.write(self.style.SUCCESS("Set MEMORY_ACCEPT_ROWS_WITHOUT_MAC to false, and restart every process."))

    def _accept(self, prefix: str) -> None:
        found = [tenant for tenant in census.all_tenants() if len(prefix) >= 8 and tenant.startswith(prefix)]
        if len(found) != 1:
            raise CommandError(f"--accept: {len(found):,} tenants begin so, or it has fewer than 8 characters.")
        self.stdout.write(f"{accept_rows(found[0]):,} rows are the set of tenant {found[0][:8]} from now on.")
