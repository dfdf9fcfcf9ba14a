"""`manage.py benchmark_rerank`: the reranker beside a plain CrossEncoder.predict on the same weights."""

from argparse import ArgumentParser
from typing import Any

from memory.benchmarks.report import Report
from memory.benchmarks.rerank import measure_rerank
from memory.benchmarks.rerank_command import RerankCommand


class Command(RerankCommand):
    help = "Measure latency, throughput and overload of the reranker beside a plain CrossEncoder.predict."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--queries", type=int, default=100, help="queries at each passage length")
        parser.add_argument("--overload-seconds", type=float, default=10.0, help="how long ten times too much is asked")

    def measure_model(self, **options: Any) -> Report:
        return measure_rerank(queries=options["queries"], overload_seconds=options["overload_seconds"])
