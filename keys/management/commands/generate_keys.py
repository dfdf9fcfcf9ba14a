"""`manage.py generate_keys`: fresh keys on stdout, or in an env file."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keys.generation import env_lines, fresh_variables, write_env_file


class Command(BaseCommand):
    help = "Generate MEMORY_ENCRYPTION_KEY, MEMORY_TENANT_HMAC_KEY and SECRET_KEY."
    # Runs before there are keys, so the checks that ask for them cannot run first.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--env-file", type=Path, help="write the keys there (mode 0600) instead of to stdout")
        parser.add_argument("--force", action="store_true", help="replace keys that the file already has")

    def handle(self, *args: Any, env_file: Path | None, force: bool, **options: Any) -> None:
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
