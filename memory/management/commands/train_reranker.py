"""`manage.py train_reranker --data DIR… --minutes N`: trains the small cross-encoder that the product ships."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from memory.benchmarks.beir import BadDataset
from memory.exceptions import EmbeddingModelUnavailable
from memory.index.embedding_runtime import bundled_directory
from memory.training import latency
from memory.training.collections import read_judged
from memory.training.recipe import Recipe
from memory.training.report import as_markdown
from memory.training.run import Job, OtherPlan, Trained, run
from rerank.training.session import Plan

OUTPUT = Path(".data/reranker")


class Command(BaseCommand):
    help = "Train a small cross-encoder from judged collections, and write it as a folder that can be served."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of collections to train on")
        parser.add_argument("--held-out", type=Path, nargs="*", default=[], help="folders that are only measured")
        parser.add_argument(
            "--minutes", type=float, required=True, help="of training; mining and measuring not counted"
        )
        parser.add_argument("--steps", type=int, help="end after so many steps where that is sooner")
        parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of everything (default: {OUTPUT})")
        parser.add_argument("--resume", action="store_true", help="go on where the run in --output was stopped")
        parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
        parser.add_argument("--threads", type=int, default=0, help="of torch and ONNX Runtime (default: their own)")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--layers", type=int, default=2, help="of the embedding model (default: 2)")
        parser.add_argument("--max-length", type=int, default=160, help="tokens of a pair (default: 160)")
        parser.add_argument("--turns", type=float, default=0.5, help="share of passages rewritten as turns of dialogue")
        parser.add_argument("--no-shared-tokens", action="store_true", help="do not flag tokens on both sides")
        parser.add_argument("--name", default="sealed-memory-reranker", help="name in config.json and on the card")
        parser.add_argument("--cache", type=Path, help="folder that keeps embeddings between runs")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            trained = run(self._job(options))
        except (BadDataset, OtherPlan, EmbeddingModelUnavailable, ValueError) as error:
            raise CommandError(str(error)) from None
        self._tell(trained)

    def _job(self, options: dict[str, Any]) -> Job:
        plan = Plan(
            body=bundled_directory(),
            minutes=options["minutes"],
            steps=options["steps"],
            layers=options["layers"],
            shared_token_types=not options["no_shared_tokens"],
            max_length=options["max_length"],
            seed=options["seed"],
            device=options["device"],
            threads=options["threads"],
        )
        return Job(
            plan=plan,
            recipe=Recipe(turns=options["turns"], seed=options["seed"]),
            collections=[read_judged(directory) for directory in options["data"]],
            held_out=options["held_out"],
            output=options["output"],
            name=options["name"],
            cache=options["cache"],
            resume=options["resume"],
            verbosity=options["verbosity"],
            log=self.stdout.write,
        )

    def _tell(self, trained: Trained) -> None:
        self.stdout.write(f"Dev, {trained.fusion}:\n{as_markdown(trained.dev)}\n")
        self.stdout.write(f"Held out:\n{as_markdown(trained.held_out)}\n")
        self.stdout.write(f"Latency:\n{latency.as_markdown(trained.latency)}\n")
        for reason in trained.in_the_way:
            self.stdout.write(self.style.WARNING(f"Not to be shipped: {reason}."))
        self.stdout.write(f"Written to {trained.folder}.")
