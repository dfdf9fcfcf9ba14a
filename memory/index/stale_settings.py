"""Finds tenants that were indexed by other settings than today's. They are still searched as they were indexed."""

import logging
from collections.abc import Sequence
from typing import Any

import psycopg
from django.apps import AppConfig
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured

from database.roles import census
from memory.index.recipe import configured, recorded

logger = logging.getLogger(__name__)

W_STALE = "memory.W012"
HINT = "Run `manage.py reindex`, or set MEMORY_VECTOR_ROTATION, MEMORY_LEXICAL_…, MEMORY_SEALED_NAMES, … back."


def stale_tenant_count() -> int:
    """How many tenants the settings do not describe; 0 where there is no census role."""
    try:
        with census() as cursor:
            cursor.execute(
                "SELECT count(*) FROM tenants WHERE recipe <> ALL (%s) AND chunk_count > 0",
                [[configured().as_text(), *([""] if recorded("") == configured() else [])]],
            )
            (count,) = cursor.fetchone() or (0,)
            return int(count)
    except (ImproperlyConfigured, psycopg.Error):  # without that role, before the first migration, or away
        return 0


def warn_of_stale_indexes() -> None:
    """At start-up: say that tenants are searched by other settings than the configured ones."""
    if count := stale_tenant_count():
        logger.warning("%d tenants were indexed by other settings and are still searched by those. %s", count, HINT)


def check_stale_indexes(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """`check --database default` and `migrate`: tenants whose index the settings no longer describe."""
    if not databases or not (count := stale_tenant_count()):
        return []
    return [Warning(f"{count} tenants were indexed by other settings than the configured.", hint=HINT, id=W_STALE)]
