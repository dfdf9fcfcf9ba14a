"""`manage.py evaluate --dataset DIR`: the quality of the answers on a judged collection."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.asking import Unit
from memory.benchmarks.beir import BadDataset, read_collection
from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.evaluation import MODES, Options, evaluate
from memory.benchmarks.report import Report
from memory.exceptions import EmbeddingModelUnavailable


class Command(BenchmarkCommand):
    help = "Measure the quality of answers, and their latency, on a judged collection in BEIR's layout."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--dataset", type=Path, required=True, help="folder of corpus.jsonl, queries.jsonl and qrels/<split>.tsv"
        )
        parser.add_argument("--split", default="test", help="which qrels file (default: test)")
        parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="default: all four")
        parser.add_argument(
            "--unit",
            choices=[unit.value for unit in Unit],
            default=Unit.DOCUMENT.value,
            help="what the qrels judge: documents (default), or chunks, by ids of the form doc_id/chunk_index",
        )
        parser.add_argument("--sentences", action="store_true", help="store every sentence as a chunk of its own")
        parser.add_argument(
            "--fusion-weights",
            nargs="+",
            type=float,
            default=[],
            metavar="WEIGHT",
            help="weights of weighted fusion to measure (default: RERANK_FUSION_WEIGHT)",
        )
        parser.add_argument("--limit-queries", type=int, help="ask the first N judged queries only")
        parser.add_argument(
            "--per-tenant-prefix",
            nargs="?",
            const=":",
            metavar="SEPARATOR",
            help="one user per id prefix, which ends at the first SEPARATOR (default: a colon)",
        )
        parser.add_argument("--cache", type=Path, help="folder that keeps the collection's embeddings between runs")
        parser.add_argument("--keep", action="store_true", help="do not erase the throw-away users afterwards")

    def measure(self, **options: Any) -> Report:
        try:
            collection = read_collection(options["dataset"], options["split"], options["limit_queries"])
            return evaluate(
                collection.by_sentence() if options["sentences"] else collection,
                Options(
                    modes=options["modes"],
                    unit=Unit(options["unit"]),
                    fusion_weights=options["fusion_weights"],
                    separator=options["per_tenant_prefix"],
                    cache=options["cache"],
                    keep=options["keep"],
                    verbosity=options["verbosity"],
                ),
            )
        except (BadDataset, EmbeddingModelUnavailable) as error:
            raise CommandError(str(error)) from None
