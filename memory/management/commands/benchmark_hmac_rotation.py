"""`manage.py benchmark_hmac_rotation`: tenants moved to another HMAC key, quietly and while they are served."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from keys.pace import Pace
from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.hmac_rotation import Load, measure_hmac_rotation
from memory.benchmarks.report import Report


class Command(BenchmarkCommand):
    help = "Measure rows per second of the HMAC rotation, quiet and while a tenant is read and written."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--rows", type=int, default=20_000, help="chunks to move, each move")
        parser.add_argument("--tenants", type=int, default=100, help="users that they belong to, of Zipf size")
        parser.add_argument("--words", type=int, default=150, help="words of each text (150 are about 1 KiB)")
        parser.add_argument("--batch", type=int, default=Pace.batch, help="rows a transaction")

    def measure(self, **options: Any) -> Report:
        load = Load(**{name: options[name] for name in ("rows", "tenants", "words", "batch")})
        if min(load.rows, load.tenants, load.words, load.batch) < 1 or load.rows < load.tenants:
            raise CommandError("All numbers must be at least 1, and --rows at least --tenants.")
        return measure_hmac_rotation(load, verbosity=options["verbosity"])
