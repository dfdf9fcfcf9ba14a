"""Finds tenants from before rows had MACs: their set of rows has no digest."""

from collections.abc import Sequence
from typing import Any

import psycopg
from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ImproperlyConfigured

from database.roles import census

W_MACS = "memory.W013"
REFUSED = "{:,} tenants have no digest of their rows: rows of theirs that have no MAC are refused."
WAITING = "{:,} tenants have rows from before there were MACs, which are read as they are."
DONE = "MEMORY_ACCEPT_ROWS_WITHOUT_MAC is true, and every tenant has its MACs: a row whose MAC is taken away is read."


def tenants_without_macs() -> int | None:
    """How many tenants with rows have no digest; None where there is no census role, or no such column yet."""
    try:
        with census() as cursor:
            cursor.execute("SELECT count(*) FROM tenants WHERE row_set IS NULL AND chunk_count > 0")
            (count,) = cursor.fetchone() or (0,)
            return int(count)
    except (ImproperlyConfigured, psycopg.Error):
        return None


def check_row_macs(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """`check --database default` and `migrate`: what an upgrade to rows with MACs has left to do."""
    if not databases or (count := tenants_without_macs()) is None:
        return []
    if not settings.MEMORY_ACCEPT_ROWS_WITHOUT_MAC:
        hint = "After an upgrade, see docs/howto/upgrade.md. Otherwise somebody took it away: run `verify_integrity`."
        return [Warning(REFUSED.format(count), hint=hint, id=W_MACS)] if count else []
    if count:
        return [Warning(WAITING.format(count), hint="Run `manage.py complete_row_macs`.", id=W_MACS)]
    return [Warning(DONE, hint="Set it to false, and restart every process.", id=W_MACS)]
