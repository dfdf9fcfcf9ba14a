"""`manage.py benchmark_query`: recall and latency of questions beside plain pgvector and other vector stores."""

from argparse import ArgumentParser
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from memory.benchmarks.command import BenchmarkCommand
from memory.benchmarks.peers import INSTALL, PEERS, MissingPeer, open_peers
from memory.benchmarks.planted import Planting, measure_planted
from memory.benchmarks.plot import plot
from memory.benchmarks.population import Population
from memory.benchmarks.query import Plan, measure_query
from memory.benchmarks.query_targets import targets
from memory.benchmarks.report import Report


class Command(BenchmarkCommand):
    help = "Measure recall and latency of questions for tenants of Zipf sizes, beside other stores."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--rows", type=int, default=100_000, help="memories of all tenants together")
        parser.add_argument("--tenants", type=int, default=1_000, help="users, whose sizes fall as 1/rank")
        parser.add_argument("--words", type=int, default=30, help="words of each memory")
        parser.add_argument("--questions", type=int, default=50, help="questions for each tenant that is asked")
        parser.add_argument(
            "--peers", nargs="*", choices=[*PEERS], default=[*PEERS], help=f"other stores ({INSTALL}); none to skip"
        )
        parser.add_argument(
            "--product-only", action="store_true", help="neither other stores, nor plain tables, nor rotation off"
        )
        parser.add_argument("--keep", action="store_true", help="keep the memories; the next run finds them again")
        parser.add_argument(
            "--planted", type=int, metavar="N", help="instead: what another tenant's N copies of a question do to it"
        )
        parser.add_argument("--plot", type=Path, metavar="DIR", help="write recall against latency as PNG and SVG")

    def measure(self, **options: Any) -> Report:
        if options["planted"]:
            return measure_planted(Planting(max(1, options["planted"]), verbosity=options["verbosity"]))
        if not 1 <= options["tenants"] <= options["rows"] or min(options["words"], options["questions"]) < 1:
            raise CommandError("--rows must be at least --tenants, and --words and --questions at least 1.")
        if options["plot"] and find_spec("matplotlib") is None:
            raise CommandError(f"matplotlib is not installed: {INSTALL}.")
        plan = Plan(
            population=Population(options["rows"], options["tenants"], options["words"]),
            questions=options["questions"],
            keep=options["keep"],
            variants=not options["product_only"],
            verbosity=options["verbosity"],
        )
        names = [] if options["product_only"] else options["peers"]
        with TemporaryDirectory(prefix="benchmark-query-", ignore_cleanup_errors=True) as folder:
            try:
                peers = list(open_peers(names, settings.MEMORY_EMBEDDING_DIM, Path(folder)))
            except MissingPeer as error:
                raise CommandError(str(error)) from None
            report = measure_query(plan, peers)
        report.targets = targets(report.results)
        if options["plot"]:
            report.notes += [f"Plotted to {path}." for path in plot(report.results, options["plot"])]
        return report
