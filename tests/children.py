"""Processes of our own beside the suite's: on the same test database, with the keys of the moment."""

import os

from django.conf import settings
from django.db import connections
from psycopg.conninfo import make_conninfo

from database.dsn import VARIABLES


def child_environment() -> dict[str, str]:
    """The environment of a process that serves or runs a command beside the test."""
    parameters = connections["default"].parameters_of  # type: ignore[attr-defined]
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        **{variable: make_conninfo(**parameters(role)) for role, variable in VARIABLES.items()},
        **key_environment(),
    }


def key_environment() -> dict[str, str]:
    """The keys of the moment."""
    return {
        "MEMORY_ENCRYPTION_KEY": settings.MEMORY_ENCRYPTION_KEY,
        "MEMORY_ENCRYPTION_KEYS_ACCEPTED": ",".join(settings.MEMORY_ENCRYPTION_KEYS_ACCEPTED),
        "MEMORY_TENANT_HMAC_KEY": settings.MEMORY_TENANT_HMAC_KEY,
        "MEMORY_TENANT_HMAC_KEYS_ACCEPTED": ",".join(settings.MEMORY_TENANT_HMAC_KEYS_ACCEPTED),
    }
