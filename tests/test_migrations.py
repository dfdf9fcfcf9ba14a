"""Migrations: frozen, append-only, and reversible on a real database as the owner."""

import ast
import hashlib
import importlib
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections, transaction
from psycopg import sql

from database import setup_sql
from database.embedded_postgres.account import server_account
from database.embedded_postgres.binaries import find
from database.embedded_postgres.layout import Layout
from database.roles import as_owner
from memory.tenancy.live_database import tenant_tables
from memory.tenancy.policies import guards
from tests.settings import CLUSTER_DIR

ROOT = Path(__file__).resolve().parent.parent
APPS = ("keys", "memory", "project", "rerank")
# A migration that has landed on `main` never changes: somewhere it has run. To change the schema write another one
# (`manage.py makemigrations`), then add its line here: `sha256sum APP/migrations/NAME.py`.
LANDED = {
    "keys/migrations/0001_initial.py": "0e22e48a1d55901799d12ca27d9f611eb9ebb9cb32a2a0664733359644368a19",
    "keys/migrations/0002_job_record.py": "efeb7c50986ca87dfdb7bb0043c4d1529b0b8ca59a9368162a44d768062629de",
    "keys/migrations/0004_jobs_and_tallies.py": "33975d8fe9541c981bd577799943559acf18959a110fb407d804465a1fea63c7",
    "memory/migrations/0001_initial.py": "1f99a342952173a229dab687f6e242bf5279f68e821736dc64cd2173ca34fc61",
    "memory/migrations/0002_services_stay.py": "7708ba256b451b33fa6ff758d6ca807d9755e4bf426da5c6eed9594ac290c293",
    "memory/migrations/0003_recipe_of_rows.py": "0c8aaee433de5c0128fc10b00affb1c3bfeb69080716cb7292564679add4c9f9",
    "memory/migrations/0004_context.py": "7ef6228312e7a6e715b84e143559b748dda33d4a6c35cca91f79cfbfe883e6e3",
    "memory/migrations/0005_times.py": "08a9c04dd68e8adbee4daa4110182b6df6c51c294c71ab8b89cc3a051437a430",
    "memory/migrations/0006_operations.py": "7cc405d5e6caf36bcdb262801c73dc8ac895f9435a666af2db6ca97778faebc5",
    "memory/migrations/0007_sources.py": "872c53a7ccd201e9eec9cb611e1fefd925a5b0f6413e99366bd4b36291162b8a",
    "memory/migrations/0008_requests.py": "867080e649cfa2e56a9b94db04749eff068db84df6a5738cbdc587db01d1e209",
    "memory/migrations/0009_time_as_a_case.py": "889d9dd344076334cfc8e920b4e1b8970db0a705248bae60e80f7152f265919d",
    "memory/migrations/0010_expiring.py": "c339cb6e2f05251bce0afb5d10db24d46233021412350a0b344e38c5189b48ca",
    "memory/migrations/0011_row_macs.py": "3fdc3750beb430d20f68e65593a536caceb8a9dabd8d378593abec9a10c09814",
    "memory/migrations/0013_service_budgets.py": "38504436e734efba62769684cec747a4ccb5c307609bc85ed477a7d9f85dcd47",
    "memory/migrations/0014_token_scopes.py": "ffd1d53bc722efc0682e97c4a4abcbbbbca6273d808ebd9cbdf70b872eb64194",
    "project/migrations/0001_initial.py": "cd4bfe13f4f1a2ec8a4921e281209ec244c193217a562a2f489bbf7a8b0a6020",
    "project/migrations/0002_counters.py": "f2dae2df226a3a7c3b20f74b780fad5382e444f06e60df18a45ea907e667750b",
    "project/migrations/0003_hourly_counts.py": "18eb4dc50c1f3216d10a911318067515e246c99d191850a3a3fb2f0dcb13c37e",
    "rerank/migrations/0001_initial.py": "d2110b9c828bb7c4543793180c6c2ff82ef1df72e53f22aa3af70c26b04b9c5f",
}
# The classes that Django itself writes into a migration. Anything else would change under it.
MAY_IMPORT = {"memory.sealing.fields"}
FROZEN = importlib.import_module("memory.migrations.0001_initial")
FROZEN_OPERATIONS = importlib.import_module("memory.migrations.0006_operations")
FROZEN_REQUESTS = importlib.import_module("memory.migrations.0008_requests")


def migration_files() -> dict[str, Path]:
    paths = (path for app in APPS for path in (ROOT / app / "migrations").glob("[0-9]*.py"))
    return {str(path.relative_to(ROOT)): path for path in paths}


def test_landed_migrations_have_not_changed() -> None:
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in migration_files().items()}
    changed = {name for name, digest in LANDED.items() if found.get(name) != digest}
    assert not changed, f"Put {sorted(changed)} back as they were and write a new migration instead."
    new = {name: digest for name, digest in found.items() if name not in LANDED}
    assert not new, f"New migrations: add them to LANDED in {Path(__file__).name}: {new}"


def test_migrations_import_no_live_code() -> None:
    imported = {
        (name, module)
        for name, path in migration_files().items()
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _modules(node)
        if module.split(".")[0] in (*APPS, "database") and module not in MAY_IMPORT
    }
    assert not imported


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


@pytest.fixture
def empty_database(transactional_db: None) -> Iterator[str]:
    """A database of its own beside the suite's, with nothing in it; `default` is connected to it meanwhile."""
    before, name = connections["default"], "test_migrations"
    _as_admin(f"CREATE DATABASE {name} TEMPLATE template1", *setup_sql.database_privileges(name))
    there = type(before)({**before.settings_dict, "NAME": name, "OPTIONS": {}}, alias="default")
    connections["default"] = there
    try:
        with as_owner() as owner, owner.cursor() as cursor:
            for statement in setup_sql.schema_privileges():
                cursor.execute(statement)
        yield name
    finally:
        there.close()
        connections["default"] = before
        _as_admin(f"DROP DATABASE {name} WITH (FORCE)")


def _as_admin(*statements: str) -> None:
    with connections["default"].creation._nodb_cursor() as cursor:  # type: ignore[attr-defined]
        for statement in statements:
            cursor.execute(statement)


def migrate(*arguments: str) -> str:
    out = io.StringIO()
    call_command("migrate", *arguments, interactive=False, stdout=out)
    return out.getvalue()


def schema(database: str) -> str:
    """What pg_dump writes of the schema, without the lines that differ each time."""
    programs = find(server_account(Layout.of(CLUSTER_DIR).cluster))
    parameters = connections["default"].parameters_of("owner")  # type: ignore[attr-defined]
    command = [programs / "pg_dump", "--schema-only", "-h", parameters["host"], "-U", "memory_owner", database]
    dump = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(line for line in dump.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))


def test_every_app_goes_forward_back_to_nothing_and_forward_again(empty_database: str) -> None:
    migrate()
    first = schema(empty_database)
    assert "CREATE POLICY tenant_isolation ON public.memory_terms" in first
    for app in APPS:
        migrate(app, "zero")
    left = schema(empty_database)
    assert not [table for table in ("tenants", "memory_", "keys_", "rerank_", "project_") if f"public.{table}" in left]
    migrate()
    assert schema(empty_database) == first


def test_a_database_from_before_the_first_release_needs_nothing(empty_database: str) -> None:
    """Its migrations had other names; the schema they made is the same."""
    migrate()
    with as_owner() as owner, owner.cursor() as cursor:
        cursor.execute(
            "UPDATE django_migrations SET name = CASE app WHEN 'keys' THEN '0001_rotation' ELSE '0001_cache' END"
            " WHERE app IN ('keys', 'project') AND name = '0001_initial'"
        )
    assert "No migrations to apply" in migrate()


@pytest.mark.django_db
def test_no_migration_is_missing() -> None:
    call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)


# --- Row-level security ----------------------------------------------------------------------------------------------
def made_tables(cursor: Any, *names: str) -> None:
    for name in names:
        cursor.execute(sql.SQL("CREATE TABLE {} (user_hash text, secret text)").format(sql.Identifier(name)))


def statements(script: str, table: str) -> list[str]:
    lines = script.format(table=table, census_columns="user_hash").split(";")
    return [line.strip() for line in lines if line.strip()]


def guarding(cursor: Any, table: str) -> list[Any]:
    """Everything that guards a table, as the database tells it."""
    cursor.execute(
        "SELECT polname, polpermissive, polcmd, polroles::regrole[]::text, pg_get_expr(polqual, polrelid),"
        " pg_get_expr(polwithcheck, polrelid) FROM pg_policy WHERE polrelid = %s::regclass ORDER BY polname",
        [table],
    )
    policies = cursor.fetchall()
    cursor.execute(
        "SELECT relrowsecurity, relforcerowsecurity, relacl::text, array_agg(attacl::text ORDER BY attname)"
        " FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0"
        " WHERE pg_class.oid = %s::regclass GROUP BY 1, 2, 3",
        [table],
    )
    return [policies, cursor.fetchone()]


@pytest.fixture
def owner_cursor(transactional_db: None) -> Iterator[Any]:
    """A cursor of the owner, in a transaction that is rolled back."""
    with as_owner() as owner, transaction.atomic(), owner.cursor() as cursor:
        yield cursor
        transaction.set_rollback(True)


@pytest.mark.parametrize("migration", [FROZEN, FROZEN_OPERATIONS, FROZEN_REQUESTS])
def test_the_frozen_policies_are_the_live_ones(owner_cursor: Any, migration: Any) -> None:
    made_tables(owner_cursor, "frozen", "live")
    for statement in statements(migration.ROW_LEVEL_SECURITY, "frozen"):
        owner_cursor.execute(statement)
    for statement in guards("live", ["user_hash"]):
        owner_cursor.execute(statement)
    assert guarding(owner_cursor, "frozen") == guarding(owner_cursor, "live")
    assert len(guarding(owner_cursor, "live")[0]) == 2


def test_the_application_has_no_right_while_a_policy_is_missing(owner_cursor: Any) -> None:
    """After every single statement, forwards and backwards."""
    made_tables(owner_cursor, "probe")
    forwards = statements(FROZEN.ROW_LEVEL_SECURITY, "probe")
    granted = []
    for statement in [*forwards, *statements(FROZEN.NO_ROW_LEVEL_SECURITY, "probe")]:
        owner_cursor.execute(statement)
        owner_cursor.execute(
            "SELECT has_any_column_privilege('memory_app', oid, 'SELECT, INSERT, UPDATE')"
            " OR has_table_privilege('memory_app', oid, 'DELETE'), relrowsecurity AND relforcerowsecurity"
            " AND (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid) = 2"
            " FROM pg_class WHERE oid = 'probe'::regclass"
        )
        open_to_app, guarded = owner_cursor.fetchone()
        assert guarded or not open_to_app, statement
        granted.append(open_to_app)
    assert any(granted)
    assert not granted[0]
    assert not granted[-1]


def test_every_tenant_table_got_the_frozen_policies() -> None:
    assert {*FROZEN.CENSUS_COLUMNS, *FROZEN_OPERATIONS.CENSUS_COLUMNS, *FROZEN_REQUESTS.CENSUS_COLUMNS} == set(
        tenant_tables()
    )
