"""The embedded Postgres: made, started, found, healed and stopped under real paths and real faults."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.core.management import call_command
from pytest_django import Settings

from database import embedded_postgres
from database.embedded_postgres import Layout, account, binaries, bootstrap, server

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="only root may become another user")


@pytest.fixture(scope="module")
def make_folder(make_reachable: Callable[[], Path]) -> Iterator[Callable[[str], Path]]:
    """Makes data directories (of the given name) that other accounts can reach, and removes their servers."""
    made: list[Path] = []

    def make(name: str = "data") -> Path:
        made.append(make_reachable() / name)
        return made[-1]

    yield make
    for folder in made:
        embedded_postgres.destroy(folder)


@pytest.fixture(scope="module")
def shared_folder(make_folder: Callable[[str], Path]) -> Path:
    return make_folder("shared")


@pytest.fixture
def folder(shared_folder: Path) -> Path:
    """A data directory with a running server, the same for all tests that leave it in order."""
    embedded_postgres.ensure_running(shared_folder, throwaway=True)
    return shared_folder


def query(folder: Path, sql: str, role: str = "owner") -> Any:
    with psycopg.connect(**embedded_postgres.dsn(folder, role), autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else None


def postmaster(folder: Path) -> psutil.Process:
    process = server._postmaster(Layout.of(folder).pgdata)
    assert process is not None
    return process


def as_user(user: account.Account, function: Callable[[], object]) -> str:
    """What `function` returns, or the error it raises, when this process' child runs it as `user`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(user.gid)
            os.setuid(user.uid)
            answer = str(function())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer


def nobody() -> account.Account:
    entry = pwd.getpwnam("nobody")
    return account.Account(entry.pw_uid, entry.pw_gid, entry.pw_name)


# --- Starting and stopping ------------------------------------------------------------------------------------------
def test_stop_and_start_keep_what_was_written(folder: Path) -> None:
    query(folder, "CREATE TABLE kept (id int)")
    assert embedded_postgres.stop(folder)
    assert not embedded_postgres.is_running(folder)
    assert not embedded_postgres.stop(folder)
    embedded_postgres.ensure_running(folder)
    assert query(folder, "SELECT count(*) FROM kept", role="app") == [(0,)]


def test_starting_twice_keeps_the_same_server(folder: Path) -> None:
    before = postmaster(folder).pid
    embedded_postgres.ensure_running(folder)
    assert postmaster(folder).pid == before


@pytest.mark.parametrize("name", ["with a space and 'quotes\"", "/".join(["long" * 12] * 4), "ümläut"])
def test_any_path_works(make_folder: Callable[[str], Path], name: str) -> None:
    folder = make_folder(name)
    embedded_postgres.ensure_running(folder, throwaway=True)
    assert query(folder, "SELECT current_user", role="app") == [("memory_app",)]


def test_two_processes_starting_at_once_make_one_server(make_folder: Callable[[str], Path]) -> None:
    folder = make_folder("data")
    script = (
        "import sys; from database import embedded_postgres as e; e.ensure_running(sys.argv[1], throwaway=True);"
        "print(e.status(sys.argv[1]))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    first, second = (process.communicate(timeout=60)[0] for process in both)
    assert first == second
    assert first.startswith("ready: pid ")


def test_a_server_killed_hard_starts_again_on_the_next_call(folder: Path) -> None:
    query(folder, "CREATE TABLE survivor (id int)")
    server_process = postmaster(folder)
    server_process.send_signal(signal.SIGKILL)
    server_process.wait()
    embedded_postgres.ensure_running(folder)
    assert query(folder, "SELECT count(*) FROM survivor") == [(0,)]


def test_a_server_whose_socket_was_taken_away_is_started_again(folder: Path) -> None:
    (socket,) = Path(embedded_postgres.dsn(folder, "app")["host"]).glob(".s.PGSQL.*[0-9]")
    before = postmaster(folder).pid
    socket.unlink()
    assert not embedded_postgres.is_running(folder)
    embedded_postgres.ensure_running(folder)
    assert postmaster(folder).pid != before
    assert query(folder, "SELECT 1") == [(1,)]


def test_a_lock_file_with_a_recycled_pid_is_no_server(folder: Path) -> None:
    embedded_postgres.stop(folder)
    runner = server.server_account(Layout.of(folder).cluster)
    # The same user's, or Postgres would see through it by itself.
    with subprocess.Popen(["sleep", "60"], **runner.process_arguments()) as other:
        (folder / "postgres" / "postmaster.pid").write_text(_pid_file(other.pid, folder))
        assert not embedded_postgres.is_running(folder)
        embedded_postgres.ensure_running(folder)
        assert postmaster(folder).pid != other.pid
        other.kill()


def test_a_lock_file_with_a_zombies_pid_is_no_server(folder: Path) -> None:
    embedded_postgres.stop(folder)
    runner = server.server_account(Layout.of(folder).cluster)
    with subprocess.Popen(["true"], **runner.process_arguments()) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        (folder / "postgres" / "postmaster.pid").write_text(_pid_file(zombie.pid, folder))
        embedded_postgres.ensure_running(folder)
    assert query(folder, "SELECT 1") == [(1,)]


def _pid_file(pid: int, folder: Path) -> str:
    return f"{pid}\n{folder}/postgres\n1700000000\n5432\n{Layout.of(folder).socket_dir}\n\n 1 1\nready   \n"


def test_no_second_server_starts_beside_what_is_left_of_the_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container cannot see the pids of another one; the lock, which the server itself holds, it can."""
    before = postmaster(folder).pid
    with monkeypatch.context() as patch:
        patch.setattr(server, "ORPHAN_SECONDS", 0.05)
        patch.setattr(server, "_postmaster", lambda pgdata: None)
        with pytest.raises(embedded_postgres.EmbeddedPostgresError, match="another container"):
            embedded_postgres.ensure_running(folder)
    assert postmaster(folder).pid == before


def test_a_bootstrap_cut_short_is_done_again(
    make_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder("data")
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "_run_setup", lambda *args, **kwargs: os._exit(9))
        assert os.waitpid(_fork(lambda: embedded_postgres.ensure_running(folder)), 0)[1] == 9 << 8
    assert list(folder.glob("postgres.new-*"))
    assert not (folder / "postgres").exists()
    embedded_postgres.ensure_running(folder, throwaway=True)
    assert not list(folder.glob("postgres.new-*"))
    assert query(folder, "SELECT current_user") == [("memory_owner",)]


def _fork(function: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(1)
    return child


def test_a_failed_setup_says_what_postgres_said(
    make_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder("data")
    monkeypatch.setattr(bootstrap.setup_sql, "extensions", lambda: ["CREATE EXTENSION no_such_extension"])
    with pytest.raises(embedded_postgres.EmbeddedPostgresError, match="no_such_extension"):
        embedded_postgres.ensure_running(folder, throwaway=True)
    assert not list(folder.glob("postgres*new*"))


@pytest.mark.parametrize("major", ["17", "19"])
def test_a_cluster_of_another_major_version_is_refused_and_left_alone(folder: Path, major: str) -> None:
    embedded_postgres.stop(folder)
    cluster = folder / "postgres"
    before = {path.name: path.stat().st_mtime_ns for path in cluster.iterdir() if path.name != "PG_VERSION"}
    (cluster / "PG_VERSION").write_text(f"{major}\n")
    try:
        with pytest.raises(embedded_postgres.EmbeddedPostgresError, match=f"Postgres {major};.*howto/upgrade.md"):
            embedded_postgres.ensure_running(folder)
        after = {path.name: path.stat().st_mtime_ns for path in cluster.iterdir() if path.name != "PG_VERSION"}
        assert after == before
    finally:
        (cluster / "PG_VERSION").write_text("18\n")
    embedded_postgres.ensure_running(folder)


def test_without_the_wheel_the_error_says_what_to_do(
    make_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "installed", lambda: None)
    with pytest.raises(embedded_postgres.EmbeddedPostgresError, match="make venv"):
        embedded_postgres.ensure_running(make_folder("data"))


def test_root_takes_an_account_that_is_there_and_adds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*command: Any, **options: Any) -> None:
        raise AssertionError(command)

    there = ["nobody"]
    monkeypatch.setattr(account, "_lookup", lambda name: account.Account(9, 9, name) if name in there else None)
    monkeypatch.setattr(account.subprocess, "run", fail)
    assert account._unprivileged().name == "nobody"
    there.append("postgres")
    assert account._unprivileged().name == "postgres"
    there.clear()
    with pytest.raises(embedded_postgres.EmbeddedPostgresError, match="useradd --system postgres.*DATABASE_URL"):
        account._unprivileged()


def test_an_account_without_a_name_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account.os, "geteuid", lambda: 54321)
    with pytest.raises(embedded_postgres.EmbeddedPostgresError, match="54321 has no name"):
        account.caller_name()


# --- Who gets in ----------------------------------------------------------------------------------------------------
def test_no_port_is_open(folder: Path) -> None:
    assert query(folder, "SELECT setting FROM pg_settings WHERE name = 'listen_addresses'") == [("",)]
    processes = [postmaster(folder), *postmaster(folder).children(recursive=True)]
    assert not [connection for process in processes for connection in process.net_connections("inet")]


def test_the_socket_is_in_a_private_folder(folder: Path) -> None:
    assert Layout.of(folder).socket_dir.stat().st_mode & 0o777 == 0o700


def test_a_socket_folder_that_others_could_use_is_refused(folder: Path) -> None:
    embedded_postgres.stop(folder)
    Layout.of(folder).socket_dir.chmod(0o777)
    with pytest.raises(embedded_postgres.EmbeddedPostgresError, match="not a private folder"):
        embedded_postgres.ensure_running(folder)
    Layout.of(folder).socket_dir.chmod(0o700)


@pytest.mark.parametrize("user", ["bootstrap", "postgres", "root"])
def test_nobody_logs_in_as_the_superuser(folder: Path, user: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"[Pp]eer authentication failed"):
        psycopg.connect(**embedded_postgres.dsn(folder, "app") | {"user": user})


@needs_root
def test_another_user_of_the_machine_is_refused_by_folder_and_by_peer_authentication(folder: Path) -> None:
    parameters = embedded_postgres.dsn(folder, "app")

    def connect() -> object:
        return psycopg.connect(**parameters)

    assert "Permission denied" in as_user(nobody(), connect)
    socket_dir = Layout.of(folder).socket_dir
    socket_dir.chmod(0o755)
    (socket_dir / ".s.PGSQL.5432").chmod(0o777)
    assert "eer authentication failed" in as_user(nobody(), connect)
    socket_dir.chmod(0o700)


@needs_root
def test_a_plain_user_runs_a_server_of_its_own(make_folder: Callable[[str], Path]) -> None:
    folder = make_folder("data")
    folder.mkdir()
    os.chown(folder, nobody().uid, nobody().gid)

    def start_and_ask() -> object:
        embedded_postgres.ensure_running(folder, throwaway=True)
        answer = query(folder, "SELECT current_user", role="app")
        assert postmaster(folder).username() == "nobody"
        embedded_postgres.destroy(folder)
        return answer

    assert as_user(nobody(), start_and_ask) == "[('memory_app',)]"


@needs_root
def test_a_second_user_is_told_whose_folder_it_is(folder: Path) -> None:
    answer = as_user(nobody(), lambda: embedded_postgres.ensure_running(folder))
    assert answer.startswith("EmbeddedPostgresError")
    assert "belongs to" in answer


@needs_root
def test_in_a_folder_closed_to_the_servers_account_root_keeps_cluster_and_programs_elsewhere(
    make_folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = make_folder("shared")
    monkeypatch.setattr(binaries, "SHARED_ROOT", shared)
    closed = make_folder("closed")
    closed.mkdir(mode=0o700)
    wheel = binaries.installed()
    assert wheel
    for part in (wheel.parent, wheel.parent.with_name(f"{wheel.parent.name}.libs")):
        (closed / part.name).symlink_to(part)
    monkeypatch.setattr(binaries, "installed", lambda: closed / wheel.parent.name / wheel.name)
    folder = closed / "data"
    embedded_postgres.ensure_running(folder, throwaway=True)
    assert query(folder, "SELECT current_user", role="app") == [("memory_app",)]
    assert postmaster(folder).exe().startswith(str(shared))
    assert (folder / "postgres").resolve().is_relative_to(shared)
    assert closed.stat().st_mode & 0o777 == 0o700
    embedded_postgres.destroy(folder)
    assert not list(shared.glob("cluster-*"))


# --- The roles ------------------------------------------------------------------------------------------------------
def test_the_roles_have_the_attributes_they_need_and_no_more(make_folder: Callable[[str], Path]) -> None:
    folder = make_folder("data")
    embedded_postgres.ensure_running(folder)
    columns = "rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
    found = query(folder, f"SELECT {columns} FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
    assert found == [
        ("bootstrap", False, True, True, True, True, True),
        ("memory_app", True, False, False, False, False, False),
        ("memory_backup", True, False, False, False, False, True),
        ("memory_census", True, False, False, False, False, False),
        ("memory_owner", True, False, False, False, False, False),
    ]


def test_no_role_is_a_member_of_another(folder: Path) -> None:
    assert query(folder, "SELECT count(*) FROM pg_auth_members WHERE member::regrole::text LIKE 'memory%'") == [(0,)]


def test_the_owner_owns_the_database_and_vector_is_there(folder: Path) -> None:
    assert query(folder, "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'memory'") == [
        ("memory_owner",)
    ]
    assert query(folder, "SELECT '[1,2]'::vector <-> '[1,2]'", role="app") == [(0.0,)]


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("app", {"SELECT", "INSERT", "UPDATE", "DELETE"}),
        ("backup", {"SELECT"}),
        ("census", set()),
    ],
)
def test_a_new_table_gives_a_role_its_privileges_alone(folder: Path, role: str, allowed: set[str]) -> None:
    query(folder, f"CREATE TABLE sample_{role} (id int)")
    every = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"]
    sql = f"SELECT p FROM unnest(%s::text[]) p WHERE has_table_privilege('memory_{role}', 'sample_{role}', p)"
    with psycopg.connect(**embedded_postgres.dsn(folder, role)) as connection:
        assert {privilege for (privilege,) in connection.execute(sql, [every])} == allowed


@pytest.mark.parametrize("role", ["app", "census", "backup"])
def test_only_the_owner_creates(folder: Path, role: str) -> None:
    for sql in ("CREATE TABLE mine (id int)", "CREATE TEMP TABLE mine (id int)", "CREATE SCHEMA mine"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(folder, sql, role=role)


def test_the_command_prints_the_url_of_a_role(
    folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.DATABASE_EMBEDDED, settings.EMBEDDED_POSTGRES_DIR = True, str(folder)
    call_command("embedded_postgres", "url", role="backup")
    with psycopg.connect(capsys.readouterr().out.strip()) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("memory_backup",)
