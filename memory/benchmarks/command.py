"""The shape of every benchmark command: parse, measure, print a table or one JSON object."""

import json
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any, TypeVar

from django.core.management.base import BaseCommand
from tqdm import tqdm

from memory.benchmarks.report import Report

T = TypeVar("T")


class BenchmarkCommand(BaseCommand):
    """Subclasses add their arguments and return a Report from `measure`; progress goes to stderr."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")

    def handle(self, *args: Any, **options: Any) -> None:
        report = self.measure(**options)
        self.stdout.write(json.dumps(report.as_json()) if options["json"] else report.as_text())

    def measure(self, **options: Any) -> Report:
        raise NotImplementedError


def progress(items: Iterable[T], label: str, *, verbosity: int = 1, unit: str = "", total: int | None = None) -> Any:
    """Iterate with a bar on stderr; silent at verbosity 0."""
    return tqdm(items, desc=label, unit=unit or "it", total=total, disable=verbosity < 1, mininterval=0.5)
