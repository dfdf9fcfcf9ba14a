"""The script for a Postgres of your own, run by psql on one that knows nothing of us."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command

from tests.bare_postgres import SUPERUSER, BarePostgres, running_bare_postgres

PASSWORDS = {f"MEMORY_{role}_PASSWORD": f"it's {role}" for role in ("OWNER", "APP", "CENSUS", "BACKUP")}


@pytest.fixture
def bare_postgres(make_reachable: Callable[[], Path]) -> Iterator[BarePostgres]:
    with running_bare_postgres(make_reachable()) as server:
        yield server


@pytest.fixture(scope="module")
def shared_bare_postgres(make_reachable: Callable[[], Path]) -> Iterator[BarePostgres]:
    """One for the tests that leave nothing in it."""
    with running_bare_postgres(make_reachable()) as server:
        yield server


def script(capsys: pytest.CaptureFixture[str]) -> str:
    call_command("database_setup", print_sql=True, database="memory")
    return capsys.readouterr().out


def run(server: BarePostgres, sql: str, passwords: dict[str, str], folder: Path) -> tuple[int, str]:
    """The exit status and the error output of psql with `sql` as a file."""
    file = folder / "setup.sql"
    file.write_text(sql)
    environment = {name: value for name, value in os.environ.items() if name not in PASSWORDS}
    environment |= passwords | {"PGPASSWORD": SUPERUSER, "PGHOST": server.host, "PGUSER": SUPERUSER}
    command = [server.programs / "psql", "--no-psqlrc", "--quiet", f"--file={file}", "postgres"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def test_the_script_prepares_a_server_and_no_password_is_in_it(
    bare_postgres: BarePostgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = script(capsys)
    assert "PASSWORD :'app_password'" in sql
    assert run(bare_postgres, sql, PASSWORDS, tmp_path) == (0, "")
    with bare_postgres.connect("memory_owner", "it's OWNER", "memory") as owner:
        owner.execute("CREATE TABLE sample (id int, place vector(2))")
    with bare_postgres.connect("memory_app", "it's APP", "memory") as app:
        app.execute("INSERT INTO sample VALUES (1, '[1,2]')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("TRUNCATE sample")


@pytest.mark.parametrize("missing", list(PASSWORDS))
@pytest.mark.parametrize("how", ["unset", "empty"])
def test_a_missing_password_stops_it_before_anything_is_made(
    shared_bare_postgres: BarePostgres, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str, how: str
) -> None:
    passwords = {name: value for name, value in PASSWORDS.items() if name != missing}
    code, said = run(
        shared_bare_postgres, script(capsys), passwords | ({missing: ""} if how == "empty" else {}), tmp_path
    )
    assert code == 3
    assert f"{missing} is not set. Nothing was changed." in said
    with shared_bare_postgres.connect() as admin:
        assert admin.execute("SELECT FROM pg_roles WHERE rolname LIKE 'memory%'").fetchall() == []


def test_it_can_be_run_again_and_sets_the_passwords_anew(
    bare_postgres: BarePostgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = script(capsys)
    assert run(bare_postgres, sql, PASSWORDS, tmp_path) == (0, "")
    with bare_postgres.connect("memory_owner", "it's OWNER", "memory") as owner:
        owner.execute("CREATE TABLE kept (id int)")
    code, said = run(bare_postgres, sql, PASSWORDS | {"MEMORY_APP_PASSWORD": "another"}, tmp_path)
    assert code == 0, said
    with bare_postgres.connect("memory_app", "another", "memory") as app:
        assert app.execute("SELECT count(*) FROM kept").fetchone() == (0,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        bare_postgres.connect("memory_app", "it's APP", "memory")


def test_a_run_that_was_cut_short_is_finished_by_the_next(
    bare_postgres: BarePostgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = script(capsys)
    half = sql[: sql.index("\\connect")]
    assert run(bare_postgres, half, PASSWORDS, tmp_path) == (0, "")
    assert run(bare_postgres, sql, PASSWORDS, tmp_path) == (0, "")
    with bare_postgres.connect("memory_owner", "it's OWNER", "memory") as owner:
        assert owner.execute("SELECT '[1,2]'::vector <-> '[1,2]'").fetchone() == (0.0,)


def test_no_password_reaches_the_servers_log(
    bare_postgres: BarePostgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with bare_postgres.connect() as admin:
        admin.execute("ALTER ROLE admin SET log_statement = 'all'")
    assert run(bare_postgres, script(capsys), PASSWORDS, tmp_path) == (0, "")
    log = bare_postgres.log.read_text()
    assert "CREATE EXTENSION" in log
    assert "it's" not in log
    assert "it''s" not in log
