"""`manage.py benchmark_index`: the write path beside the same rows written plainly, bulk work, and the model alone."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.embedding import measure_embedding
from memory.benchmarks.index import Load, measure_index
from memory.benchmarks.ingestion import measure_import, measure_reindex
from memory.benchmarks.report import Report


class Command(BenchmarkCommand):
    help = (
        "Measure rows per second of the write path, embeddings given, beside the same rows written plainly; or an"
        " import beside the embedding model alone; or a writer beside a reindex; or the embedding model by itself."
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
        parser.add_argument(
            "--model",
            action="store_true",
            help="measure instead what the write path leaves out: the embedding model, beside sentence-transformers",
        )
        parser.add_argument("--questions", type=int, default=200, help="with --model: questions to time")
        parser.add_argument("--slices", type=int, default=40, help="with --model: slices of each kind to time")

    def measure(self, **options: Any) -> Report:
        if options["model"]:
            return measure_embedding(questions=max(1, options["questions"]), slices=max(1, options["slices"]))
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
