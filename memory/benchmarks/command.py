"""Base class of the benchmark commands: parse, measure, print tables or one JSON object."""

import json
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any, TypeVar

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from memory.benchmarks.report import Report

T = TypeVar("T")


class BenchmarkCommand(BaseCommand):
    """Subclasses add their arguments and return a Report from `measure`; progress goes to stderr."""

    # Whether a missed target makes the exit code 1: for commands that serve as gates.
    fails_on_missed_target = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        report = self.measure(**options)
        self.stdout.write(json.dumps(report.as_json()) if options["json"] else report.as_text())
        missed = [target.name for target in report.targets if not target.ok]
        if missed and self.fails_on_missed_target:
            raise CommandError(f"Missed: {', '.join(missed)}.")

    def measure(self, **options: Any) -> Report:
        raise NotImplementedError


def progress(items: Iterable[T], label: str, *, verbosity: int = 1, unit: str = "", total: int | None = None) -> Any:
    """Iterate with a bar on stderr; silent at verbosity 0."""
    return tqdm(items, desc=label, unit=unit or "it", total=total, disable=verbosity < 1, mininterval=0.5)
