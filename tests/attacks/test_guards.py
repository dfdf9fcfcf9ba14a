"""What guards the tables holds, and each piece of it is missed when it is gone: every mutant is killed by its guard."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from memory.exceptions import DatabaseMisconfigured
from memory.tenancy import live_database
from project import startup
from tests.attacks.guards import GUARDS, Guard, fit_to_serve
from tests.attacks.mutants import Kind, kinds
from tests.attacks.superuser import copied_schema, undone
from tests.attacks.tally import tried

pytestmark = pytest.mark.django_db
Admin = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def admin(django_db_setup: None, make_reachable: Callable[[], Path]) -> Iterator[Admin]:
    with copied_schema(make_reachable()) as admin:
        yield admin


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_it_holds(admin: Admin, guard: Guard) -> None:
    with undone(admin) as cursor:
        guard(cursor)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_every_mutant_is_killed(admin: Admin, kind: Kind) -> None:
    with undone(admin) as cursor:
        mutants = list(kind.make(cursor))
    survivors = [mutant for mutant in mutants if survives(admin, mutant, kind.killed_by)]
    assert mutants and not survivors
    tried("mutants of policies, grants, roles and tables, each killed", len(mutants))


def survives(admin: Admin, mutant: str, guard: Guard) -> bool:
    """Whether a guard holds although something was weakened."""
    with undone(admin) as cursor:
        cursor.execute(mutant)
        try:
            guard(cursor)
        except (AssertionError, psycopg.Error, pytest.fail.Exception):
            return False
        return True


# --- The check before serving, itself mutated: each part of it is what notices one kind of mutant --------------------
PARTS = {
    "_role_problems": "ALTER ROLE memory_app BYPASSRLS",
    "_version_problems": "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'",
    "_table_problems": "ALTER TABLE memory_chunks DISABLE ROW LEVEL SECURITY",
    "_policy_problems": "ALTER POLICY tenant_isolation ON memory_terms USING (true)",
    "_partition_problems": "CREATE TABLE part () INHERITS (memory_chunks); GRANT SELECT ON part TO memory_app",
    "_dimension_problems": "UPDATE pg_attribute SET atttypmod = 7 WHERE attrelid = 'memory_vectors'::regclass"
    " AND attname = 'embedding'",
    "bypass_problems": "CREATE VIEW more AS SELECT * FROM tenants; GRANT SELECT ON more TO memory_app",
}


def test_every_part_of_the_check_is_listed() -> None:
    assert {name for name in vars(live_database) if name.endswith("_problems")} == {*PARTS, "live_problems"}


@pytest.mark.parametrize("part", PARTS)
def test_without_a_part_of_the_check_a_mutant_would_survive(
    admin: Admin, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not survives(admin, PARTS[part], fit_to_serve)
    monkeypatch.setattr(live_database, part, lambda *args: iter(()))
    assert survives(admin, PARTS[part], fit_to_serve)
    tried("parts of the check before serving taken out, each missed")


@pytest.mark.parametrize(
    "harmless",
    [
        "CREATE VIEW more WITH (security_invoker) AS TABLE tenants; GRANT SELECT ON more TO memory_app",
        "CREATE VIEW more AS TABLE tenants",
        "CREATE VIEW more AS TABLE django_migrations; GRANT SELECT ON more TO memory_app",
        "CREATE FUNCTION more() RETURNS SETOF text LANGUAGE sql AS 'SELECT user_hash FROM tenants'",
        "ALTER ROLE memory_app SET work_mem = '8MB'",
        "ALTER ROLE memory_backup SET app.user_hash = 'x'",
    ],
)
def test_what_leads_past_no_policy_is_not_refused(admin: Admin, harmless: str) -> None:
    assert survives(admin, harmless, fit_to_serve)


# --- Who calls it ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("check", ["refuse_failed_checks", "assert_live_database", "assert_live_keys"])
def test_nothing_is_started_when_a_check_refuses(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise DatabaseMisconfigured(["refused"])

    def start(role: str) -> None:
        raise AssertionError("It serves.")

    monkeypatch.setattr(startup, check, refuse)
    monkeypatch.setattr(startup.heartbeat, "start", start)
    with pytest.raises(DatabaseMisconfigured):
        startup.begin_serving("test")
    tried("checks before serving that refuse")


@pytest.mark.parametrize("entry", ["wsgi", "asgi"])
def test_both_ways_to_serve_check_first(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(startup, "begin_serving", asked.append)
    monkeypatch.delitem(sys.modules, f"project.{entry}", raising=False)
    importlib.import_module(f"project.{entry}")
    assert asked == [entry]
