"""The SQL that a superuser runs once: roles, extension and privileges. No Django, no connection.

The embedded Postgres runs it in its bootstrap; `manage.py database_setup --print-sql` prints it for a Postgres of
your own. Tenant tables get their row-level security, and the census its columns, from the migrations.
"""

ROLES = ("memory_owner", "memory_app", "memory_census", "memory_backup")
# BYPASSRLS reads every tenant's (sealed) rows: pg_dump fails under FORCE ROW LEVEL SECURITY without it.
ATTRIBUTES = {"memory_backup": "BYPASSRLS"}


def create_roles(passwords: dict[str, str] | None = None) -> list[str]:
    """Statements that make the four roles, none a member of another.

    `passwords` gives, per role, the SQL expression of its password; without it a role has none and only peer
    authentication lets it in.
    """
    return [_create_role(role, (passwords or {}).get(role)) for role in ROLES]


def _create_role(role: str, password: str | None) -> str:
    attributes = ATTRIBUTES.get(role, "NOBYPASSRLS")
    secret = f" PASSWORD {password}" if password else ""
    return f"CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION {attributes}{secret}"


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
    """The whole set-up as a psql script; passwords come from the environment, so that no command line shows them."""
    variables = {role: f"{role.removeprefix('memory_')}_password" for role in ROLES}
    lines = [
        "-- Run once as a superuser, with psql 14 or newer and pgvector 0.8.2 or newer installed on the server:",
        "--   MEMORY_OWNER_PASSWORD=… MEMORY_APP_PASSWORD=… MEMORY_CENSUS_PASSWORD=… MEMORY_BACKUP_PASSWORD=… \\",
        "--   psql --no-psqlrc --file=setup.sql postgres",
        "-- Passwords are read from the environment. Have log_statement at 'none' meanwhile, or the server logs them.",
        "\\set ON_ERROR_STOP on",
        *(f"\\getenv {variable} MEMORY_{variable.upper()}" for variable in variables.values()),
        *(f"{statement};" for statement in create_roles({role: f":'{name}'" for role, name in variables.items()})),
        f"CREATE DATABASE {database} OWNER memory_owner TEMPLATE template0 ENCODING 'UTF8';",
        *(f"{statement};" for statement in database_privileges(database)),
        f"\\connect {database}",
        *(f"{statement};" for statement in [*extensions(), *schema_privileges()]),
    ]
    return "\n".join(lines) + "\n"
