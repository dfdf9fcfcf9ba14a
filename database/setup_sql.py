"""The SQL that a superuser runs: roles, extension and privileges. No Django, no connection.

The embedded Postgres runs it in its bootstrap; `manage.py database_setup --print-sql` prints it for a Postgres of
your own. Tenant tables get their row-level security, and the census its columns, from the migrations.
"""

from collections.abc import Iterator

ROLES = ("memory_owner", "memory_app", "memory_census", "memory_backup")
# BYPASSRLS reads every tenant's (sealed) rows: pg_dump fails under FORCE ROW LEVEL SECURITY without it.
ATTRIBUTES = {"memory_backup": "BYPASSRLS"}

HEADER = """\
-- Run as a superuser, with psql 15 or newer. It checks before it changes anything, and may be run again: then it gives
-- the roles the passwords that it finds now.
--   MEMORY_OWNER_PASSWORD=… MEMORY_APP_PASSWORD=… MEMORY_CENSUS_PASSWORD=… MEMORY_BACKUP_PASSWORD=… \\
--   psql --no-psqlrc --file=setup.sql postgres
\\set ON_ERROR_STOP on
-- Statements with passwords in them stay out of the server's log. (An extension that logs by itself does not listen.)
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';"""
CHECKS = """\
DO $$ BEGIN
    IF current_setting('server_version_num')::int < 180000 THEN
        RAISE 'Postgres 18 or newer is needed, this is %. Nothing was changed.', current_setting('server_version');
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_available_extension_versions
        WHERE name = 'vector' AND string_to_array(version, '.')::int[] >= '{0,8,2}'
    ) THEN
        RAISE 'pgvector 0.8.2 or newer is not installed on this server. Nothing was changed.';
    END IF;
END $$;"""


def create_roles(passwords: dict[str, str] | None = None) -> list[str]:
    """Statements that make the four roles, none a member of another.

    `passwords` gives, per role, the SQL expression of its password; without it a role has none and only peer
    authentication lets it in.
    """
    return [_create_role(role, (passwords or {}).get(role)) for role in ROLES]


def _create_role(role: str, password: str | None) -> str:
    secret = f" PASSWORD {password}" if password else ""
    return f"CREATE ROLE {role} {_attributes(role)}{secret}"


def _attributes(role: str) -> str:
    return f"LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION {ATTRIBUTES.get(role, 'NOBYPASSRLS')}"


def extensions() -> list[str]:
    """pgvector, which is not a trusted extension: only a superuser may create it."""
    return ["CREATE EXTENSION IF NOT EXISTS vector"]


def schema_privileges() -> list[str]:
    """What the roles may do with the tables that the owner will make in schema public.

    The application gets no TRUNCATE, REFERENCES or TRIGGER; the census nothing, until a migration grants it columns.
    """
    default = "ALTER DEFAULT PRIVILEGES FOR ROLE memory_owner IN SCHEMA public GRANT"
    return [
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"{default} SELECT, INSERT, UPDATE, DELETE ON TABLES TO memory_app",
        f"{default} USAGE, SELECT ON SEQUENCES TO memory_app",
        f"{default} SELECT ON TABLES TO memory_backup",
        f"{default} SELECT ON SEQUENCES TO memory_backup",
    ]


def database_privileges(database: str) -> list[str]:
    """Who may connect to `database` (an identifier, not quoted here): the four roles and nobody else."""
    return [
        f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        f"GRANT CONNECT ON DATABASE {database} TO {', '.join(ROLES)}",
    ]


def test_privileges() -> list[str]:
    """What a test run needs besides, in a cluster that it throws away."""
    return ["ALTER ROLE memory_owner CREATEDB", "GRANT CONNECT ON DATABASE postgres TO memory_owner"]


def script(database: str = "memory") -> str:
    """The whole set-up as a psql script that checks first and can be run again.

    Passwords come from the environment, so that no command line shows them.
    """
    return "\n".join([HEADER, *_passwords(), CHECKS, *_roles_and_database(database), *_inside(database)]) + "\n"


def _passwords() -> Iterator[str]:
    """psql lines that read each password, and stop where one is missing: before anything is made."""
    for role in ROLES:
        variable = _variable(role)
        yield f"\\set {variable} ''"
        yield f"\\getenv {variable} MEMORY_{variable.upper()}"
        yield f"SELECT :'{variable}' = '' AS missing \\gset"
        yield "\\if :missing"
        yield f"DO $$ BEGIN RAISE 'MEMORY_{variable.upper()} is not set. Nothing was changed.'; END $$;"
        yield "\\endif"


def _roles_and_database(database: str) -> Iterator[str]:
    for role in ROLES:
        yield f"SELECT 'CREATE ROLE {role}' WHERE to_regrole('{role}') IS NULL \\gexec"
        yield f"ALTER ROLE {role} {_attributes(role)} PASSWORD :'{_variable(role)}';"
    made = f"CREATE DATABASE {database} OWNER memory_owner TEMPLATE template0 ENCODING ''UTF8''"
    yield f"SELECT '{made}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec"  # noqa: S608
    yield from (f"{statement};" for statement in database_privileges(database))


def _inside(database: str) -> Iterator[str]:
    yield f"\\connect {database}"
    yield from (f"{statement};" for statement in [*extensions(), *schema_privileges()])


def _variable(role: str) -> str:
    return f"{role.removeprefix('memory_')}_password"
