"""`manage.py key_status`: shows every key, the last rotations and what is safe to do next."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder

from keys.exceptions import KeyConfigurationError
from keys.status import KeyFacts, KeyReport, key_report

HEADINGS = ("key", "purpose", "state", "rows", "tenants", "seals", "first seen", "last seen", "processes")


class Command(BaseCommand):
    help = "Show every key id with what names it, and what is safe to do next. Exit code 1 when something needs you."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")

    def handle(self, *args: Any, as_json: bool, **options: Any) -> None:
        try:
            report = key_report()
        except (ImproperlyConfigured, KeyConfigurationError) as error:
            raise CommandError(str(error)) from None
        if as_json:
            self.stdout.write(json.dumps(report.as_json(), cls=DjangoJSONEncoder, indent=2))
        else:
            self._write(report)
        if report.attention:
            raise CommandError(f"{len(report.attention)} of these need attention.", returncode=1)

    def _write(self, report: KeyReport) -> None:
        for line in _table([HEADINGS, *(_cells(key) for key in report.keys)]):
            self.stdout.write(line)
        self.stdout.write(f"\nLive serving processes: {len(report.processes)}")
        for run in filter(None, (report.run, report.hmac_run)):
            self.stdout.write(
                f"Last {run.get_kind_display()} rotation: {run.state}, {run.phase or 'not begun'}, {run.rows_done:,} of"
                f" {run.rows_total:,} rows, {'verified' if run.verified else 'not verified'}"
            )
        for line in report.attention:
            self.stdout.write(self.style.WARNING(f"! {line}"))
        for line in report.next_steps:
            self.stdout.write(f"> {line}")


def _cells(key: KeyFacts) -> tuple[str, ...]:
    return (
        key.key_id,
        key.purpose,
        key.state,
        f"{key.row_count:,}",
        f"{key.tenants:,}",
        f"{key.seals:,}" if key.purpose == "encryption" else "-",
        f"{key.first_seen:%Y-%m-%d %H:%M}" if key.first_seen else "-",
        f"{key.last_seen:%Y-%m-%d %H:%M}" if key.last_seen else "-",
        str(len(key.processes)),
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
