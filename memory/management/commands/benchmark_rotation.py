"""`manage.py benchmark_rotation`: the encryption rotation beside a bare UPDATE, and beside a load."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.report import Report
from memory.benchmarks.rotation import Load, measure_rotation
from memory.benchmarks.rotation_beside_load import measure_beside_load


class Command(BenchmarkCommand):
    help = "Measure rows per second re-sealed, beside a bare UPDATE of the same bytes; --beside-load adds a client."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--rows", type=int, default=20_000, help="rows of 1 KiB text, three sealed columns each")
        parser.add_argument("--tenants", type=int, default=10, help="users that the rows are spread over")
        parser.add_argument("--rotations", type=int, default=10, help="how often all rows are re-sealed")
        parser.add_argument("--batch", type=int, default=500, help="rows per transaction")
        parser.add_argument(
            "--beside-load",
            action="store_true",
            help="rotate once at --max-rate beside a client",
        )
        parser.add_argument("--max-rate", type=float, default=1_000.0, help="rows per second with --beside-load")

    def measure(self, **options: Any) -> Report:
        load = Load(**{name: options[name] for name in ("rows", "tenants", "rotations", "batch")})
        if min(load.rows_each, load.tenants, load.rotations, load.batch) < 1:
            raise CommandError("--rows, --tenants, --rotations and --batch must be at least 1.")
        if options["beside_load"]:
            return measure_beside_load(load, options["max_rate"], verbosity=options["verbosity"])
        return measure_rotation(load, verbosity=options["verbosity"])
