"""`manage.py import_memories`: documents from a file or a pipe, one JSON object a line."""

import sys
from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from memory.exceptions import InvalidUserId
from memory.importing import ImportReport, import_lines
from memory.security import validate_user_id

DEFAULT_BATCH = 128
SHOWN_BAD_LINES = 20


class Command(BaseCommand):
    help = (
        "Store documents for one user from JSON lines (those of the API, or a BEIR corpus). Documents that the user "
        "already has are skipped, so an interrupted import is simply run again."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="a .jsonl file, or - for standard input")
        parser.add_argument("--user", required=True, metavar="ID", help="canonical user id, as person:5 or service:a:b")
        parser.add_argument("--batch", type=int, default=DEFAULT_BATCH, help="documents a transaction (%(default)s)")
        parser.add_argument("--replace", action="store_true", help="store documents anew that the user already has")

    def handle(self, *args: Any, file: str, user: str, batch: int, replace: bool, **options: Any) -> None:
        try:
            validate_user_id(user)
        except InvalidUserId as error:
            raise CommandError(f"--user: {error}") from None
        if batch < 1:
            raise CommandError("--batch must be at least 1.")
        with _opened(file) as lines, _bar(file) as bar:

            def progress(report: ImportReport, size: int) -> None:
                bar.set_postfix(documents=report.documents, skipped=report.skipped, bad=len(report.bad), refresh=False)
                bar.update(size)

            report = import_lines(user_id=user, lines=lines, batch_size=batch, replace=replace, progress=progress)
            seconds = bar.format_dict["elapsed"]
        self._say(report, seconds)

    def _say(self, report: ImportReport, seconds: float) -> None:
        self.stdout.write(
            f"Stored {report.documents} documents in {report.chunks} chunks in {seconds:.1f} s"
            f" ({report.documents / max(seconds, 1e-9):.1f} documents/s); {report.skipped} were there already."
        )
        for number, reason in report.bad[:SHOWN_BAD_LINES]:
            self.stderr.write(f"line {number}: {reason}")
        if len(report.bad) > SHOWN_BAD_LINES:
            others = ", ".join(str(number) for number, _ in report.bad[SHOWN_BAD_LINES:])
            self.stderr.write(f"and lines {others}")
        if report.bad:
            raise CommandError(f"{len(report.bad)} bad lines were left out; all others are stored.")


def _opened(file: str) -> Any:
    if file == "-":
        stdin: IO[bytes] = sys.stdin.buffer
        return nullcontext(stdin)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}.") from None


def _bar(file: str) -> Any:
    total = Path(file).stat().st_size if file != "-" and Path(file).is_file() else None
    # To stderr; on a terminal only a bar that lasts is worth drawing, in a log a line every ten seconds.
    return tqdm(total=total, unit="B", unit_scale=True, desc="import", mininterval=0.5 if sys.stderr.isatty() else 10)
