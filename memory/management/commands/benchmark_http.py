"""`manage.py benchmark_http`: the service measured from outside."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.http import Plan, measure_http
from memory.benchmarks.plot_http import plot_http
from memory.benchmarks.report import Report
from memory.benchmarks.server import ServerNotReady


class Command(BenchmarkCommand):
    help = "Start the server and measure questions and writes over HTTP, alone and beside each other."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000], help="rows of each tenant")
        parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32], help="clients at once")
        parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
        parser.add_argument(
            "--checkout", type=Path, help="serve from this other checkout, to compare two versions in turns"
        )

        parser.add_argument("--chroma", type=Path, help="the executable `chroma`: measure its server too")
        parser.add_argument("--plot", type=Path, help="write benchmark_http.svg and .png into this folder")

    def measure(self, **options: Any) -> Report:
        if min([*options["sizes"], *options["clients"]]) < 1 or options["seconds"] <= 0:
            raise CommandError("--sizes, --clients and --seconds must be positive.")
        plan = Plan(
            sizes=tuple(options["sizes"]),
            clients=tuple(options["clients"]),
            seconds=options["seconds"],
            checkout=options["checkout"],
            chroma=options["chroma"],
        )
        try:
            report = measure_http(plan, verbosity=options["verbosity"])
        except ServerNotReady as error:
            raise CommandError(str(error)) from None
        if options["plot"]:
            plot_http(report.results, options["plot"])
        return report
