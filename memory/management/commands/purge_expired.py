"""`manage.py purge_expired`: delete the memories that have expired."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from tqdm import tqdm

from keys.jobs import Job, record
from memory.verbs.expiry import purge_expired


class Command(BaseCommand):
    help = (
        "Delete every memory whose expires_at has passed, tenant by tenant in short transactions, while serving. No"
        " answer has held them since. A run that was stopped is simply run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        with tqdm(desc="purge", unit=" chunks", disable=None, mininterval=0.5) as bar:
            purged = purge_expired(progress=bar.update)
        record(Job.PURGE)
        if options["json"]:
            counts = {"tenants": purged.tenants, "deleted": dict(purged.deleted), "remaining": purged.remaining}
            self.stdout.write(json.dumps(counts))
            return
        rows = ", ".join(f"{count:,} of {table}" for table, count in purged.deleted.items()) or "none"
        self.stdout.write(
            f"Rows deleted: {rows}; {purged.tenants:,} tenants. Expired since then: {purged.remaining:,}."
        )
