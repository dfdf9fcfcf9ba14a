"""Base class of the commands that measure the cross-encoder, with its own weights or random ones of its shape."""

from argparse import ArgumentParser
from contextlib import nullcontext
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.report import Report
from memory.benchmarks.rerank import random_weights
from rerank.outcomes import ModelUnavailable


class RerankCommand(BenchmarkCommand):
    """Needs neither keys nor database. Subclasses return a Report from `measure_model`."""

    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--random-weights",
            action="store_true",
            help="a model of TinyBERT's shape with random weights: honest latency, meaningless order",
        )

    def measure(self, **options: Any) -> Report:
        with random_weights() if options["random_weights"] else nullcontext("") as note:
            try:
                report = self.measure_model(**options)
            except ModelUnavailable as error:
                raise CommandError(f"{error} Or measure with --random-weights.") from error
        report.notes += [note] if note else []
        return report

    def measure_model(self, **options: Any) -> Report:
        raise NotImplementedError
