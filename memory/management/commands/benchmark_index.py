"""`manage.py benchmark_index`: the write path beside the same rows written plainly."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.index import Load, measure_index
from memory.benchmarks.report import Report


class Command(BenchmarkCommand):
    help = "Measure rows per second of the write path, embeddings given, beside the same rows written plainly."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--rows", type=int, default=20_000, help="documents of one chunk to write")
        parser.add_argument("--batch", type=int, default=500, help="documents in one call, and so in one transaction")
        parser.add_argument("--tenants", type=int, default=10, help="users that the rows are spread over")
        parser.add_argument("--words", type=int, default=60, help="words of each text")

    def measure(self, **options: Any) -> Report:
        load = Load(**{name: options[name] for name in ("rows", "batch", "tenants", "words")})
        if min(load.rows, load.batch, load.tenants, load.words) < 1:
            raise CommandError("--rows, --batch, --tenants and --words must be at least 1.")
        return measure_index(load, verbosity=options["verbosity"])
