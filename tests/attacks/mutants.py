"""What guards the tables, removed or weakened piece by piece, and which guard notices.

The pieces are read from the catalogue: every policy, grant, role and table that there is. docs/security.md lists the
kinds; a test compares.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import psycopg

from database.setup_sql import ROLES
from memory.tenancy.live_database import tenant_tables
from memory.tenancy.policies import OWN_ROWS
from tests.attacks.catalogue import CENSUS_COLUMNS, WRITE, found_grants
from tests.attacks.guards import (
    Guard,
    fit_to_serve,
    grants_are_these,
    nothing_is_unknown,
    own_rows_alone,
    roles_are_these,
    the_application_can_work,
    the_census_counts_all,
    the_owner_is_bound_too,
)
from tests.attacks.superuser import HASHES

Cursor = psycopg.Cursor[Any]
# By role, beside those that it has.
GIVEN = {
    "memory_app": ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"),
    "memory_backup": ("INSERT", "UPDATE", "DELETE"),
    "memory_census": WRITE,
    "PUBLIC": WRITE,
}
WEAKER = (
    "true",
    f"{OWN_ROWS} OR true",
    f"{OWN_ROWS} OR user_hash = '{HASHES[1]}'",
    f"coalesce({OWN_ROWS}, true)",
    "user_hash >= nullif(current_setting('app.user_hash', true), '')",
    "left(user_hash, 0) = left(current_setting('app.user_hash', true), 0)",
)
NO_FORCE = "ALTER TABLE {} NO FORCE ROW LEVEL SECURITY"
DROPPED = "DROP POLICY tenant_isolation ON {}"
USING, WITH_CHECK = "USING ({weaker})", "WITH CHECK ({weaker})"
ANOTHER = "CREATE POLICY more ON {} TO memory_app USING (true)"
CENSUS_FOR_ALL = "ALTER POLICY census ON {} TO memory_census, memory_app"


@dataclass(frozen=True)
class Kind:
    """Mutants of one kind: the guard that kills them, and the SQL of each."""

    name: str
    killed_by: Guard
    make: Callable[[Cursor], Iterable[str]]


def kinds() -> tuple[Kind, ...]:
    """Every kind of mutant."""
    return (
        Kind("row-level security off", fit_to_serve, each_table("ALTER TABLE {} DISABLE ROW LEVEL SECURITY")),
        Kind("FORCE taken back", fit_to_serve, each_table(NO_FORCE)),
        Kind("FORCE taken back, for the owner", the_owner_is_bound_too, each_table(NO_FORCE)),
        Kind("tenant policy dropped", fit_to_serve, each_table(DROPPED)),
        Kind("tenant policy dropped, for the application", the_application_can_work, each_table(DROPPED)),
        Kind("USING weakened", own_rows_alone, weakened(USING)),
        Kind("WITH CHECK weakened", own_rows_alone, weakened(WITH_CHECK)),
        Kind(
            "USING or WITH CHECK weakened, at start",
            fit_to_serve,
            weakened(USING, WITH_CHECK),
        ),
        Kind("tenant policy for everybody", fit_to_serve, each_table("ALTER POLICY tenant_isolation ON {} TO PUBLIC")),
        Kind("tenant policy for one command", fit_to_serve, for_one_command),
        Kind("another permissive policy", fit_to_serve, each_table(ANOTHER)),
        Kind("census policy for the application too", fit_to_serve, each_table(CENSUS_FOR_ALL)),
        Kind("census policy dropped", the_census_counts_all, each_table("DROP POLICY census ON {}")),
        Kind("census policy narrowed", the_census_counts_all, each_table("ALTER POLICY census ON {} USING (false)")),
        Kind("a policy of another name", nothing_is_unknown, each_table("CREATE POLICY more ON {} USING (true)")),
        Kind("a table owned by the application", fit_to_serve, each_table("ALTER TABLE {} OWNER TO memory_app")),
        Kind("a right taken away", grants_are_these, every_grant_revoked),
        Kind("a right given", grants_are_these, rights_given),
        Kind("TRUNCATE or REFERENCES given, at start", fit_to_serve, truncate_or_references),
        Kind("an attribute of a role turned", roles_are_these, attributes_turned),
        Kind("an attribute given to the application, at start", fit_to_serve, attributes_given),
        Kind("a role made a member of another", roles_are_these, memberships),
        Kind("the application made a member, at start", fit_to_serve, memberships_of_the_application),
        Kind("a user named by default", roles_are_these, named_by_default),
        Kind("a user named by default, at start", fit_to_serve, named_by_default),
        Kind("an object that no rule covers", nothing_is_unknown, unknown_objects),
        Kind("a view or function past the policies, at start", fit_to_serve, past_the_policies),
    )


def each_table(template: str) -> Callable[[Cursor], Iterable[str]]:
    return lambda cursor: (template.format(table) for table in tenant_tables())


def weakened(*clauses: str) -> Callable[[Cursor], Iterable[str]]:
    return lambda cursor: (
        f"ALTER POLICY tenant_isolation ON {table} {clause.format(weaker=weaker)}"
        for table in tenant_tables()
        for clause in clauses
        for weaker in WEAKER
    )


def for_one_command(cursor: Cursor) -> Iterator[str]:
    for table in tenant_tables():
        for command, clauses in (
            ("SELECT", f"USING ({OWN_ROWS})"),
            ("INSERT", f"WITH CHECK ({OWN_ROWS})"),
            ("UPDATE", f"USING ({OWN_ROWS}) WITH CHECK ({OWN_ROWS})"),
            ("DELETE", f"USING ({OWN_ROWS})"),
        ):
            yield (
                f"DROP POLICY tenant_isolation ON {table};"
                f"CREATE POLICY tenant_isolation ON {table} FOR {command} TO memory_app {clauses}"
            )


def every_grant_revoked(cursor: Cursor) -> Iterator[str]:
    for kind, name, role, right in found_grants(cursor):
        if kind == "column":
            table, _, column = name.partition(".")
            yield f"REVOKE {right} ({column}) ON {table} FROM {role}"
        else:
            on = cursor.connection.info.dbname if kind == "database" else name
            yield f"REVOKE {right} ON {kind} {on} FROM {role}"


def rights_given(cursor: Cursor) -> Iterator[str]:
    for relation in sorted({name for kind, name, *_ in found_grants(cursor) if kind == "table"}):
        for role, rights in GIVEN.items():
            yield from (f"GRANT {right} ON {relation} TO {role}" for right in rights)
    for table in tenant_tables():
        cursor.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", [table])
        for (column,) in cursor.fetchall():
            yield f"GRANT UPDATE ({column}) ON {table} TO memory_census"
            if column not in CENSUS_COLUMNS[table]:
                yield f"GRANT SELECT ({column}) ON {table} TO memory_census"
    yield from (f"GRANT CREATE ON SCHEMA public TO {role}" for role in ("memory_app", "PUBLIC"))
    yield from (f"GRANT {right} ON DATABASE memory TO memory_app" for right in ("CREATE", "TEMPORARY"))
    yield "GRANT CONNECT ON DATABASE memory TO PUBLIC"


def truncate_or_references(cursor: Cursor) -> Iterator[str]:
    for table, right, role in product(tenant_tables(), ("TRUNCATE", "REFERENCES"), ("memory_app", "PUBLIC")):
        yield f"GRANT {right} ON {table} TO {role}"


def attributes_turned(cursor: Cursor) -> Iterator[str]:
    for role in ROLES:
        turned = ["SUPERUSER", "CREATEDB", "CREATEROLE", "REPLICATION", "NOLOGIN", "NOINHERIT"]
        turned.append("NOBYPASSRLS" if role == "memory_backup" else "BYPASSRLS")
        yield from (f"ALTER ROLE {role} {attribute}" for attribute in turned)


def attributes_given(cursor: Cursor) -> Iterator[str]:
    for attribute in ("SUPERUSER", "BYPASSRLS", "CREATEROLE", "REPLICATION"):
        yield f"ALTER ROLE memory_app {attribute}"


def memberships(cursor: Cursor) -> Iterator[str]:
    yield from (f"GRANT {role} TO {member}" for role, member in permutations(ROLES, 2))
    yield from memberships_of_the_application(cursor)


def memberships_of_the_application(cursor: Cursor) -> Iterator[str]:
    others = [role for role in ROLES if role != "memory_app"]
    yield from (f"GRANT {role} TO memory_app" for role in (*others, "pg_read_all_data", "pg_write_all_data"))
    yield from (f"GRANT {role} TO memory_app WITH INHERIT FALSE" for role in others)


def named_by_default(cursor: Cursor) -> Iterator[str]:
    for whom in ("ROLE memory_app", "DATABASE memory", "ROLE ALL", "ROLE memory_app IN DATABASE memory"):
        yield f"ALTER {whom} SET app.user_hash = '{HASHES[1]}'"


def unknown_objects(cursor: Cursor) -> Iterator[str]:
    yield "CREATE TABLE more (id int)"
    yield "CREATE SEQUENCE more"
    yield "CREATE VIEW more AS SELECT 1"
    yield "CREATE MATERIALIZED VIEW more AS SELECT 1"
    yield "CREATE SCHEMA more"
    yield "CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'"
    yield "CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)"
    yield "CREATE RULE more AS ON DELETE TO tenants DO INSTEAD NOTHING"
    yield "CREATE TRIGGER more BEFORE UPDATE ON tenants EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    yield "CREATE PUBLICATION more FOR TABLE tenants"
    yield "CREATE STATISTICS more ON user_hash, recipe FROM tenants"
    yield "CREATE FOREIGN DATA WRAPPER more; CREATE SERVER more FOREIGN DATA WRAPPER more"


def past_the_policies(cursor: Cursor) -> Iterator[str]:
    for table in tenant_tables():
        yield f"CREATE VIEW more AS SELECT * FROM {table}; GRANT SELECT ON more TO memory_app"
        yield f"CREATE VIEW more AS SELECT * FROM {table}; GRANT SELECT (user_hash) ON more TO PUBLIC"
        yield f"CREATE VIEW more AS SELECT * FROM {table}; GRANT INSERT ON more TO memory_app"
        yield f"CREATE VIEW a AS TABLE {table}; CREATE VIEW more AS TABLE a; GRANT SELECT ON more TO memory_app"
        yield f"CREATE MATERIALIZED VIEW more AS SELECT * FROM {table}; GRANT SELECT ON more TO memory_app"
    function = "more() RETURNS SETOF text SECURITY DEFINER LANGUAGE sql AS 'SELECT user_hash FROM memory_chunks'"
    yield f"CREATE FUNCTION {function}"
    yield f"CREATE SCHEMA more; GRANT USAGE ON SCHEMA more TO PUBLIC; CREATE FUNCTION more.{function}"
