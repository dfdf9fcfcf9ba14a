"""`manage.py benchmark_dump --dataset DIR`: what a dump tells somebody who knows some of a user's texts."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.beir import BadDataset, read_collection
from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.dump import Options, measure_dump
from memory.benchmarks.report import Report
from memory.exceptions import EmbeddingModelUnavailable


class Command(BenchmarkCommand):
    help = "Attack a dump of a throw-away user's rows, which hold half of a collection, by known texts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--dataset", type=Path, required=True, help="folder of corpus.jsonl, queries.jsonl and qrels/<split>.tsv"
        )
        parser.add_argument("--split", default="test", help="which qrels file (default: test)")
        parser.add_argument(
            "--known", nargs="+", type=int, default=[0, 10, 100, 1_000], metavar="N", help="how many texts are known"
        )
        parser.add_argument("--draws", type=int, default=3, help="choices of the known texts (default: 3)")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--cache", type=Path, help="folder that keeps the collection's embeddings between runs")

    def measure(self, **options: Any) -> Report:
        try:
            collection = read_collection(options["dataset"], options["split"])
            names = ("known", "draws", "seed", "cache", "verbosity")
            return measure_dump(collection, Options(**{name: options[name] for name in names}))
        except (BadDataset, EmbeddingModelUnavailable) as error:
            raise CommandError(str(error)) from None
