"""What guards the tables, each said as one function that raises AssertionError when it does not hold.

`test_guards` runs them on the schema as it is, and on every mutant of it: each mutant is killed by the guard that
`mutants` names for it.
"""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from database.setup_sql import ROLES
from memory.tenancy.live_database import live_problems, tenant_tables
from tests.attacks.catalogue import expected_grants, found_grants, strangers
from tests.attacks.superuser import HASHES, PARENTS_FIRST, acting_as, insert

Cursor = psycopg.Cursor[Any]
Guard = Callable[[Cursor], None]
OWN, OTHER = HASHES
REFUSED = (psycopg.errors.InsufficientPrivilege,)
ATTRIBUTES = ("rolsuper", "rolinherit", "rolcreaterole", "rolcreatedb", "rolcanlogin", "rolreplication", "rolbypassrls")


def fit_to_serve(cursor: Cursor) -> None:
    """`assert_live_database()`, which every server calls before it serves, finds nothing."""
    with acting_as(cursor, "memory_app"):
        assert list(live_problems(cursor)) == []  # type: ignore[arg-type]


def own_rows_alone(cursor: Cursor) -> None:
    """The application sees, changes and makes rows of the user it names, and of nobody else."""
    for table in tenant_tables():
        for named, visible in ((None, []), ("c" * 64, []), (OWN, [(OWN,)])):
            with acting_as(cursor, "memory_app", named):
                assert cursor.execute(f"SELECT user_hash FROM {table}").fetchall() == visible
                assert cursor.execute(f"UPDATE {table} SET user_hash = user_hash").rowcount == len(visible)
                assert cursor.execute(f"DELETE FROM {table} WHERE user_hash = '{OTHER}'").rowcount == 0
        for named in (None, "c" * 64, OWN):
            with acting_as(cursor, "memory_app", named):
                refused(cursor, lambda table=table: insert(cursor, table, OTHER))
        with acting_as(cursor, "memory_app", OWN):
            refused(cursor, lambda table=table: cursor.execute(f"UPDATE {table} SET user_hash = '{'c' * 64}'"))


def the_application_can_work(cursor: Cursor) -> None:
    """The application reads, makes, changes and deletes rows of the user it names."""
    tables = [table for table in PARENTS_FIRST if table in tenant_tables()]
    with acting_as(cursor, "memory_app", OWN):
        for table in reversed(tables):
            assert cursor.execute(f"DELETE FROM {table}").rowcount == 1
        for table in tables:
            insert(cursor, table, OWN)
            assert cursor.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)
            assert cursor.execute(f"UPDATE {table} SET user_hash = user_hash").rowcount == 1


def the_owner_is_bound_too(cursor: Cursor) -> None:
    """Row-level security is forced on whoever owns the tables."""
    for table in tenant_tables():
        with acting_as(cursor, "memory_owner"):
            assert cursor.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def the_census_counts_all(cursor: Cursor) -> None:
    """The census sees the rows of all users, for counting."""
    for table in tenant_tables():
        with acting_as(cursor, "memory_census"):
            assert cursor.execute(f"SELECT count(user_hash) FROM {table}").fetchone() == (len(HASHES),)


def grants_are_these(cursor: Cursor) -> None:
    """Every right on a relation, column, schema or the database is one that a rule gives, and none is missing."""
    found, expected = set(found_grants(cursor)), set(expected_grants(cursor))
    assert not (more := sorted(found - expected)), f"more than any rule gives: {more}"
    assert not (less := sorted(expected - found)), f"less than the rules give: {less}"


def roles_are_these(cursor: Cursor) -> None:
    """The four roles have these attributes and no other, and are members of nothing; nobody is a member of them."""
    cursor.execute(f"SELECT rolname, {', '.join(ATTRIBUTES)} FROM pg_roles WHERE rolname = ANY (%s)", [list(ROLES)])
    found = {name: dict(zip(ATTRIBUTES, values, strict=True)) for name, *values in cursor.fetchall()}
    plain = dict.fromkeys(ATTRIBUTES, False) | {"rolinherit": True, "rolcanlogin": True}
    assert found == {role: plain | {"rolbypassrls": role == "memory_backup"} for role in ROLES}
    cursor.execute(
        "SELECT roleid::regrole, member::regrole FROM pg_auth_members WHERE roleid::regrole::text = ANY (%(roles)s)"
        " OR member::regrole::text = ANY (%(roles)s)",
        {"roles": list(ROLES)},
    )
    assert cursor.fetchall() == []
    cursor.execute("SELECT setconfig FROM pg_db_role_setting")
    assert cursor.fetchall() == []


def nothing_is_unknown(cursor: Cursor) -> None:
    """Every object of the database is covered by a rule of `catalogue`."""
    assert not (unknown := list(strangers(cursor))), f"no rule of tests.attacks.catalogue covers {unknown}"


GUARDS: tuple[Guard, ...] = (
    fit_to_serve,
    own_rows_alone,
    the_application_can_work,
    the_owner_is_bound_too,
    the_census_counts_all,
    grants_are_these,
    roles_are_these,
    nothing_is_unknown,
)


def refused(cursor: Cursor, act: Callable[[], Any]) -> None:
    with pytest.raises(REFUSED), cursor.connection.transaction():
        act()
