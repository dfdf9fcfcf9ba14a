"""`manage.py benchmark_index`: the write path beside the same rows written plainly, and bulk work."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.index import Load, measure_index
from memory.benchmarks.ingestion import measure_import, measure_reindex
from memory.benchmarks.report import Report


class Command(BenchmarkCommand):
    help = (
        "Measure rows per second of the write path, embeddings given, beside the same rows written plainly; or an"
        " import beside the embedding model alone; or a writer beside a reindex."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--rows", type=int, default=20_000, help="documents of one chunk to write")
        parser.add_argument("--batch", type=int, default=500, help="documents in one call, and so in one transaction")
        parser.add_argument("--tenants", type=int, default=10, help="users that the rows are spread over")
        parser.add_argument("--words", type=int, default=60, help="words of each text")

        parser.add_argument("--import-file", type=Path, metavar="FILE", help="measure an import of JSON lines instead")
        parser.add_argument("--limit", type=int, metavar="N", help="of --import-file, the first N documents")
        parser.add_argument("--reindex", type=int, metavar="ROWS", help="measure a reindex of a tenant instead")

    def measure(self, **options: Any) -> Report:
        if path := options["import_file"]:
            try:
                return measure_import(path, limit=options["limit"], verbosity=options["verbosity"])
            except OSError as error:
                raise CommandError(f"{path}: {error.strerror}.") from None
        if options["reindex"]:
            return measure_reindex(options["reindex"], options["words"], verbosity=options["verbosity"])
        load = Load(**{name: options[name] for name in ("rows", "batch", "tenants", "words")})
        if min(load.rows, load.batch, load.tenants, load.words) < 1:
            raise CommandError("--rows, --batch, --tenants and --words must be at least 1.")
        return measure_index(load, verbosity=options["verbosity"])
