"""`manage.py benchmark_rerank`: the reranker beside a plain CrossEncoder.predict on the same weights."""

import tempfile
from argparse import ArgumentParser
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.test import override_settings

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.report import Report, Target, at_least, at_most, less_than
from memory.benchmarks.rerank import Measured, measure
from rerank.outcomes import ModelUnavailable

# p95 of 24 candidates of about 120 tokens, in ms, by kind of device.
P95_MS = {"cpu": 80.0, "cuda": 12.0}


class Command(BenchmarkCommand):
    requires_system_checks: list[str] = []  # neither keys nor database are needed
    help = "Measure latency, throughput and overload of the reranker beside a plain CrossEncoder.predict."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--queries", type=int, default=100, help="queries at each passage length")
        parser.add_argument("--overload-seconds", type=float, default=10.0, help="how long ten times too much is asked")
        parser.add_argument(
            "--random-weights",
            action="store_true",
            help="a model of TinyBERT's shape with random weights: honest latency, meaningless order",
        )

    def measure(self, **options: Any) -> Report:
        with ExitStack() as stack:
            report = Report("benchmark_rerank")
            if options["random_weights"]:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                stack.enter_context(_random_model(directory))
                report.notes.append("Random weights of TinyBERT's shape: the latency is honest, the order is noise.")
            try:
                found = measure(queries=options["queries"], overload_seconds=options["overload_seconds"])
            except ModelUnavailable as error:
                raise CommandError(f"{error} Or measure with --random-weights.") from error
            report.results = list(found.rows)
            report.targets = _targets(found)
            return report


def _random_model(directory: Path) -> Any:
    from rerank.weights.random_model import write_random_model

    write_random_model(directory)
    return override_settings(RERANK_ENABLED=True, RERANK_MODEL=str(directory), RERANK_MODEL_SHA256="", RERANK_GOLDEN=[])


def _targets(found: Measured) -> list[Target]:
    device = "cuda" if "cuda" in found.rows[0]["device"] else "cpu"
    overload = found.overload
    return [
        less_than("p95 of 24 candidates of ~120 tokens", found.p95_ms, P95_MS[device], "ms"),
        at_most("the same against plain predict", found.p95_against_plain, 0.6, "×"),
        at_least("throughput of 16 clients against plain predict", found.throughput_against_plain, 2.0, "×"),
        less_than("p99 of the requests reranked at 10 × capacity", overload["reranked_p99_ms"], 250.0, "ms"),
        less_than("p99 of the requests turned away at 10 × capacity", overload["turned_away_p99_ms"], 50.0, "ms"),
        less_than("memory growth in the second half of the overload", overload["memory_growth_mib"], 32.0, "MiB"),
    ]
