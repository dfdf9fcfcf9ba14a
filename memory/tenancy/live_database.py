"""`assert_live_database()`: refuses a database that does not isolate tenants.

System checks do not see the live database. So this is called when serving starts and by `/readyz`; never by `migrate`,
which makes the tables and policies in the first place.
"""

import re
from collections.abc import Iterator, Sequence

from django.apps import apps
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.utils import CursorWrapper

from memory.exceptions import DatabaseMisconfigured
from memory.tenancy.bypasses import bypass_problems
from memory.tenancy.policies import OWN_ROWS
from memory.tenancy.tenant_model import TenantModel

# A string, a quoted name, a cast to text, a word, or any other character.
TOKEN = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|::\s*text\b|\w+|[^\w\s]")
MINIMUM_POSTGRES = 180000
# Below 0.8.2 a parallel HNSW build may leak data of other relations (CVE-2026-3172).
MINIMUM_PGVECTOR = (0, 8, 2)


def assert_live_database(using: str = DEFAULT_DB_ALIAS) -> None:
    """Raise DatabaseMisconfigured, with every problem, unless role, policies and pgvector are as they must be."""
    with connections[using].cursor() as cursor:
        problems = list(live_problems(cursor))
    if problems:
        raise DatabaseMisconfigured(problems)


def live_problems(cursor: CursorWrapper) -> Iterator[str]:
    """Every reason not to serve from this connection, as one line each. Empty when all is well."""
    yield from _role_problems(cursor)
    yield from _version_problems(cursor)
    tables = tenant_tables()
    for table in tables:
        yield from _table_problems(cursor, table)
    yield from _partition_problems(cursor, tables)
    yield from bypass_problems(cursor, tables)
    yield from _dimension_problems(cursor)


def tenant_tables() -> list[str]:
    """The tables of every concrete TenantModel."""
    return sorted(
        model._meta.db_table for model in apps.get_models() if issubclass(model, TenantModel) and model._meta.managed
    )


def _role_problems(cursor: CursorWrapper) -> Iterator[str]:
    cursor.execute(
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolreplication"
        " FROM pg_roles WHERE rolname = current_user"
    )
    name, *attributes = cursor.fetchone()
    for held, attribute in zip(attributes, ("SUPERUSER", "BYPASSRLS", "CREATEROLE", "REPLICATION"), strict=True):
        if held:
            yield f"The application role {name} has {attribute}: ALTER ROLE {name} NO{attribute}."
    # USAGE: roles whose rights are inherited without SET ROLE. MEMBER catches those reachable by SET ROLE as well.
    cursor.execute(
        "SELECT rolname FROM pg_roles WHERE rolname <> current_user"
        " AND (pg_has_role(current_user, oid, 'USAGE') OR pg_has_role(current_user, oid, 'MEMBER'))"
    )
    for (other,) in cursor.fetchall():
        yield f"The application role {name} is a member of {other}: REVOKE {other} FROM {name}."


def _version_problems(cursor: CursorWrapper) -> Iterator[str]:
    cursor.execute(
        "SELECT current_setting('server_version_num')::int,"
        " (SELECT extversion FROM pg_extension WHERE extname = 'vector')"
    )
    server, pgvector = cursor.fetchone()
    if server < MINIMUM_POSTGRES:
        yield f"Postgres 18 or newer is needed, this is {server // 10000}."
    if pgvector is None:
        yield "The extension vector is missing: CREATE EXTENSION vector, as a superuser."
    elif tuple(int(part) for part in pgvector.split(".")) < MINIMUM_PGVECTOR:
        yield f"pgvector {'.'.join(map(str, MINIMUM_PGVECTOR))} or newer is needed, this is {pgvector}."


def _table_problems(cursor: CursorWrapper, table: str) -> Iterator[str]:
    cursor.execute(
        "SELECT c.relrowsecurity, c.relforcerowsecurity, c.relowner = current_user::regrole,"
        " has_table_privilege(c.oid, 'TRUNCATE'), has_table_privilege(c.oid, 'REFERENCES')"
        " FROM pg_class c WHERE c.oid = to_regclass(%s)",
        [table],
    )
    row = cursor.fetchone()
    if row is None:
        yield f"The table {table} is missing: run `manage.py migrate`."
        return
    enabled, forced, owned, truncate, references = row
    if not enabled:
        yield f"Row-level security is off on {table}: ALTER TABLE {table} ENABLE ROW LEVEL SECURITY."
    if not forced:
        yield f"Row-level security is not forced on {table}: ALTER TABLE {table} FORCE ROW LEVEL SECURITY."
    if owned:
        yield f"The application role owns {table}: ALTER TABLE {table} OWNER TO memory_owner."
    for held, privilege in ((truncate, "TRUNCATE"), (references, "REFERENCES")):
        if held:
            yield f"The application role may {privilege} {table}: REVOKE {privilege} ON {table} FROM the role."
    yield from _policy_problems(cursor, table)


def _partition_problems(cursor: CursorWrapper, tables: Sequence[str]) -> Iterator[str]:
    """A partition that is addressed by its own name is not guarded by its parent's policies.

    One statement for all of them: there may be a thousand, and a probe asks every few seconds.
    """
    cursor.execute(
        "SELECT oid::regclass::text, relrowsecurity AND relforcerowsecurity,"
        " has_any_column_privilege(oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(oid, 'DELETE, TRUNCATE')"
        " FROM pg_inherits JOIN pg_class ON oid = inhrelid"
        " WHERE inhparent IN (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name) ORDER BY 1",
        [list(tables)],
    )
    for partition, guarded, reachable in cursor.fetchall():
        if not guarded:
            yield f"Row-level security is off or not forced on the partition {partition}: ENABLE and FORCE it."
        if reachable:
            yield (
                f"The application role may reach past the policies into {partition}: REVOKE ALL ON {partition} FROM it."
            )


def _policy_problems(cursor: CursorWrapper, table: str) -> Iterator[str]:
    cursor.execute(
        "SELECT polname, polcmd::text, polroles = '{0}', pg_get_expr(polqual, polrelid),"
        " pg_get_expr(polwithcheck, polrelid) FROM pg_policy WHERE polrelid = to_regclass(%s) AND polpermissive"
        " AND (polroles = '{0}' OR current_user::regrole = ANY (polroles))",
        [table],
    )
    permissive = cursor.fetchall()
    if not any(command == "*" and using and check for _, command, _, using, check in permissive):
        yield f"{table} has no policy with USING and WITH CHECK for the application: run `manage.py migrate`."
    # Permissive policies OR together: one that asks for anything else than the user hash opens the table.
    for name, _, for_public, using, check in permissive:
        if not all(same_expression(expression, OWN_ROWS) for expression in (using, check) if expression):
            yield f"The policy {name} on {table} does not compare with app.user_hash: DROP POLICY {name} ON {table}."
        if for_public:
            yield f"The policy {name} on {table} is for PUBLIC: ALTER POLICY {name} ON {table} TO memory_app."


def same_expression(deparsed: str, expected: str) -> bool:
    """Whether two SQL expressions are equal but for brackets, casts to text, white space and case of words.

    Versions of Postgres may print the same expression differently. Strings and quoted names are compared as they are.
    Brackets can be ignored because the expected words in this order have only one meaning.
    """
    return list(_tokens(deparsed)) == list(_tokens(expected))


def _tokens(expression: str) -> Iterator[str]:
    for token in TOKEN.findall(expression):
        if token[0] == '"':
            yield token[1:-1]
        elif token[0] == "'":
            yield token
        elif token not in ("(", ")") and not token.startswith("::"):
            yield token.lower()


def _dimension_problems(cursor: CursorWrapper) -> Iterator[str]:
    cursor.execute(
        "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass('memory_vectors') AND attname = 'embedding'"
    )
    row = cursor.fetchone()
    if row is not None and row[0] != settings.MEMORY_EMBEDDING_DIM:
        yield (
            f"memory_vectors.embedding has {row[0]} dimensions, MEMORY_EMBEDDING_DIM is"
            f" {settings.MEMORY_EMBEDDING_DIM}: the dimension is fixed at set-up."
        )
