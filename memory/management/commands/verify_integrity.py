"""`manage.py verify_integrity`: open everything and compare it with the index; exit code 1 when something is wrong."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from keys import jobs
from memory.operations.maintenance import verified
from memory.rotation.findings import Inspection
from memory.rotation.integrity import inspect_all
from memory.tenancy.census import totals_by_hmac_key


class Command(BaseCommand):
    help = (
        "Open every row and compare it with its MAC, each tenant's rows with the digest of their set, and vectors,"
        " keywords, labels and postings with their sealed originals; check chunk counts and orphan hashes."
        " Exit code 1 when anything is not as it should be."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--sample", type=_share, default=1.0, metavar="SHARE", help="share of each tenant's rows to open, 0 to 1"
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, sample: float, **options: Any) -> None:
        total = sum(chunks for _, chunks in totals_by_hmac_key().values())
        with tqdm(total=int(total * sample), desc="verify", unit=" rows", disable=None) as bar:
            seen = inspect_all(sample=sample, advance=bar.update)
        jobs.record(jobs.Job.VERIFY, succeeded=not seen.found, message=verified(seen))
        if options["json"]:
            self.stdout.write(json.dumps({"sample": sample, **asdict(seen)}))
        else:
            self._say(seen)
        if seen.found:
            raise CommandError(f"{seen.found:,} things are not as they should be.")

    def _say(self, seen: Inspection) -> None:
        for finding in seen.findings:
            self.stdout.write(str(finding))
        if more := seen.found - len(seen.findings):
            self.stdout.write(f"… and {more:,} more.")
        self.stdout.write(
            f"{seen.tenants:,} tenants, {seen.rows:,} rows opened, {seen.drifted:,} under another key than they name"
            " (mended by the next rotate_encryption_key)."
        )
        if seen.without_mac or seen.without_set:
            self.stdout.write(
                f"{seen.without_mac:,} rows have no MAC yet, and {seen.without_set:,} tenants no digest of their set of"
                " rows: complete_row_macs gives them theirs."
            )
        if not seen.found:
            self.stdout.write(self.style.SUCCESS("Everything is as it should be."))


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        raise ArgumentTypeError("a number between 0 and 1") from None
    if not 0 < share <= 1:
        raise ArgumentTypeError("above 0 and at most 1")
    return share
