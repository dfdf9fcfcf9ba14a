"""`manage.py benchmark_crypto`: seal and open_sealed beside raw AES-256-GCM."""

from argparse import ArgumentParser
from typing import Any

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.crypto import measure_crypto
from memory.benchmarks.report import Report


class Command(BenchmarkCommand):
    help = "Measure sealing and opening at 32 B, 1 KiB and 64 KiB beside AES-256-GCM alone."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--seconds", type=float, default=2.0, help="time for each of the six measurements")

    def measure(self, **options: Any) -> Report:
        return measure_crypto(seconds=options["seconds"])
