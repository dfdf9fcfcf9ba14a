"""System checks of the project's settings. None of them connects."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from database.dsn import VARIABLES
from database.embedded_postgres import binaries

# The owner's and the backup's connections are for a migration's and a backup's environment; a web process that has
# neither is the safer one. Their commands name the variable when it is missing.
NEEDED_TO_SERVE = ("app", "census")


@checks.register("project")
def check_database_urls(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001: a role that serving needs has no URL. E002: two roles are one user."""
    if settings.DATABASE_EMBEDDED:
        return []
    missing = [VARIABLES[role] for role in NEEDED_TO_SERVE if role not in settings.DATABASE_ROLES]
    found: list[checks.CheckMessage] = [_missing(variable) for variable in missing]
    users = Counter(parameters.get("user", "") for parameters in settings.DATABASE_ROLES.values())
    return found + [_shared(user) for user, count in users.items() if count > 1]


def _missing(variable: str) -> checks.Error:
    return checks.Error(
        f"DATABASE_URL is set, but {variable} is not.",
        hint=f"Set {variable} to a URL of its own role; `manage.py database_setup --print-sql` makes the roles.",
        id="project.E001",
    )


def _shared(user: str) -> checks.Error:
    return checks.Error(
        f"Two of the database URLs name the same user {user!r}.",
        hint="Give each of DATABASE_URL and DATABASE_{OWNER,CENSUS,BACKUP}_URL a role of its own: as the owner, the "
        "application could lift its row-level security.",
        id="project.E002",
    )


@checks.register("project")
def check_databases(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E003: ATOMIC_REQUESTS. E004: a mirrored test database. E005: another engine."""
    return [message for alias, database in settings.DATABASES.items() for message in database_errors(alias, database)]


def database_errors(alias: str, database: Mapping[str, Any]) -> Iterator[checks.CheckMessage]:
    """What is wrong with the settings of one database."""
    if database.get("ATOMIC_REQUESTS"):
        yield checks.Error(
            f"ATOMIC_REQUESTS is on for the database {alias!r}.",
            hint="Turn it off: it would keep a transaction open while a request is embedded and reranked.",
            id="project.E003",
        )
    if database.get("TEST", {}).get("MIRROR"):
        yield checks.Error(
            f"TEST['MIRROR'] is set for the database {alias!r}.",
            hint="Remove it: a test run that touches only the mirror would run on the real database.",
            id="project.E004",
        )
    if database.get("ENGINE") != "database":
        yield checks.Error(
            f"The database {alias!r} does not use the engine 'database'.",
            hint="Set ENGINE to 'database': migrations and the census need its roles.",
            id="project.E005",
        )


@checks.register("project")
def check_embedded_postgres(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E006: no Postgres at all."""
    if not settings.DATABASE_EMBEDDED or binaries.installed():
        return []
    return [
        checks.Error(
            f"DATABASE_URL is not set, and the embedded Postgres ({binaries.WHEEL}) is not installed.",
            hint="Run `make venv`, or set DATABASE_URL to a Postgres of your own.",
            id="project.E006",
        )
    ]


@checks.register("project")
def check_metrics_networks(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E011: a network that is none, which would make every scrape an error."""
    return [
        checks.Error(
            f"METRICS_ALLOWED_NETWORKS holds {network!r}, which is no network.",
            hint="Write networks as 10.1.0.0/16, addresses as 10.1.2.3, commas between them.",
            id="project.E011",
        )
        for network in settings.METRICS_ALLOWED_NETWORKS
        if not _is_network(network)
    ]


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
