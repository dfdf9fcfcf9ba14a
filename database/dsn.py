"""One set of connection parameters per role, from the environment or for the embedded server.

The settings import this module, so it reads no settings.
"""

from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from psycopg.conninfo import conninfo_to_dict

from database import embedded_postgres

# Which variable gives the connection of a role.
VARIABLES = {
    "app": "DATABASE_URL",
    "owner": "DATABASE_OWNER_URL",
    "census": "DATABASE_CENSUS_URL",
    "backup": "DATABASE_BACKUP_URL",
}
# A host that does not answer must not hold a request for minutes (libpq's default is to wait for ever).
CONNECT_TIMEOUT_SECONDS = "5"
DJANGO_NAMES = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}


def roles(urls: dict[str, str], embedded_dir: str) -> dict[str, dict[str, str]]:
    """Connection parameters by role. `urls` holds a libpq URL, or "", for every role; without one for the
    application all roles are those of the embedded server in `embedded_dir`."""
    if not urls["app"]:
        return {role: embedded_postgres.dsn(embedded_dir, role) for role in VARIABLES}
    return {role: parse(url, VARIABLES[role]) for role, url in urls.items() if url}


def parse(url: str, variable: str) -> dict[str, str]:
    """Connection parameters of a libpq URL or keyword string. Names `variable`, never its value, when it is wrong."""
    try:
        found = conninfo_to_dict(url)
    except psycopg.Error:
        raise ImproperlyConfigured(
            f"{variable} is no Postgres connection URL. Write postgresql://user:password@host:5432/dbname?sslmode=…"
        ) from None
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        **{name: str(value) for name, value in found.items() if value is not None},
    }


def django_settings(parameters: dict[str, str]) -> dict[str, Any]:
    """`parameters` as Django's DATABASES spells them: five names of its own, everything else an option of libpq."""
    named = {django: parameters.get(libpq, "") for libpq, django in DJANGO_NAMES.items()}
    options = {name: value for name, value in parameters.items() if name not in DJANGO_NAMES}
    return {**named, "OPTIONS": options}
