"""Processes of our own beside the suite's: on the same test database, with the keys of the moment."""

import os
import warnings
from collections.abc import Callable

from django.conf import settings
from django.db import connections
from psycopg.conninfo import make_conninfo

from database.dsn import VARIABLES
from keys import steps

KILLED = 9


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


def die_in_a_child(work_on: Callable[[], object], number: int) -> int:
    """Do some work in a child process that is killed at a step; returns its exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the pool's threads stay behind, and are not used
        child = os.fork()
    if child == 0:
        try:
            passed: list[str] = []

            def die(step: str) -> None:
                passed.append(step)
                if len(passed) == number:
                    os._exit(KILLED)

            steps.observer = die
            work_on()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
