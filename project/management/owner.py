"""`command_as_owner()`: runs the body of a management command as the owner of the tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.db import OperationalError

from database.base import DatabaseWrapper
from database.roles import as_owner


@contextmanager
def command_as_owner(using: str) -> Iterator[DatabaseWrapper]:
    """`as_owner()` for a command: a missing DATABASE_OWNER_URL, a database that is away or a lock timeout ends it with
    one line instead of a traceback."""
    try:
        with as_owner(using) as owner:
            yield owner
    except (ImproperlyConfigured, OperationalError) as error:
        raise CommandError(str(error)) from error
