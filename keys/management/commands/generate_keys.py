"""`manage.py generate_keys`: fresh keys on stdout or in an env file, or the lines of the coming rotation."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys.exceptions import KeyConfigurationError
from keys.generation import env_lines, fresh_variables, next_rotation, write_env_file
from keys.models import Purpose


class Command(BaseCommand):
    help = "Generate MEMORY_ENCRYPTION_KEY, MEMORY_TENANT_HMAC_KEY and SECRET_KEY."
    # Runs before there are keys, so the checks that ask for them cannot run first.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--env-file", type=Path, help="write the keys there (mode 0600) instead of to stdout")
        parser.add_argument("--force", action="store_true", help="replace keys that the file already has")
        parser.add_argument(
            "--next",
            dest="coming",
            nargs="?",
            choices=Purpose.values,
            const=Purpose.ENCRYPTION.value,
            help="print the env lines of the coming rotation, of the encryption key unless you say hmac",
        )

    def handle(self, *args: Any, env_file: Path | None, force: bool, coming: str | None, **options: Any) -> None:
        if coming is not None:
            self._print_next(Purpose(coming), env_file)
            return
        variables = fresh_variables()
        if env_file is None:
            self.stdout.write(env_lines(variables), ending="")
            return
        try:
            write_env_file(env_file, variables, force=force)
        except FileExistsError as error:
            raise CommandError(
                f"{error}. Rows sealed under them would never open again; add --force only when there are none."
            ) from None
        except OSError as error:
            raise CommandError(f"Cannot write {env_file}: {error.strerror}.") from None
        self.stdout.write(self.style.SUCCESS(f"Wrote {', '.join(variables)} to {env_file} (mode 0600)."))

    def _print_next(self, purpose: Purpose, env_file: Path | None) -> None:
        if env_file is not None:
            raise CommandError("--next prints lines for three restarts: put them into place one after the other.")
        try:
            self.stdout.write(next_rotation(purpose), ending="")
        except KeyConfigurationError as error:
            raise CommandError(str(error)) from None
