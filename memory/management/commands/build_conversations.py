"""`manage.py build_conversations --data DIR --out DIR`: a conversational collection for `evaluate`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from memory.benchmarks.conversations import build_conversations


class Command(BaseCommand):
    help = "Build dialogues, a chunk a turn, and the questions that single turns answer, in BEIR's layout."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True, help="folder with train/squad_sentence_pairs")
        parser.add_argument("--out", type=Path, required=True, help="folder to write corpus, queries and qrels into")
        parser.add_argument("--seed", type=int, default=0)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            counts = build_conversations(options["data"], options["out"], seed=options["seed"])
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}.") from None
        self.stdout.write(", ".join(f"{count:,} {name}" for name, count in counts.items()))
        self.stdout.write(
            f"Now: manage.py evaluate --dataset {options['out']} --unit chunk --per-tenant-prefix --cache DIR"
        )
