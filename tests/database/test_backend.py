"""The backend: its pool over a server that goes and comes back, the other roles, the embedded server's start."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection, connections
from django.views.debug import SafeExceptionReporterFilter
from psycopg_pool import ConnectionPool
from pytest_django import DjangoDbBlocker, Settings

from database import dsn, embedded_postgres
from database.base import DatabaseWrapper


def ask(sql: str = "SELECT current_user", wrapper: Any = connection) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


@pytest.fixture
def stoppable(cluster_dir: str) -> Iterator[str]:
    """The run's cluster, running again afterwards whatever the test did."""
    yield cluster_dir
    embedded_postgres.ensure_running(cluster_dir)


# --- A server of somebody else's ------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_a_lost_server_is_an_operational_error_and_the_next_request_after_its_return_works(stoppable: str) -> None:
    assert ask() == "memory_app"
    connection.close()
    embedded_postgres.stop(stoppable)
    started = time.monotonic()
    with pytest.raises(OperationalError):
        ask()
    assert time.monotonic() - started < 5
    embedded_postgres.ensure_running(stoppable)
    assert ask() == "memory_app"


@pytest.mark.django_db(transaction=True)
def test_a_pool_full_of_connections_to_the_server_before_its_restart_does_not_fail_a_request(stoppable: str) -> None:
    assert ask() == "memory_app"
    connection.close()
    full = connection.pool
    assert full is not None
    held = [full.getconn() for _ in range(full.max_size)]
    for each in held:
        full.putconn(each)
    embedded_postgres.stop(stoppable)
    embedded_postgres.ensure_running(stoppable)
    assert ask() == "memory_app"


@pytest.mark.django_db(transaction=True)
def test_a_server_lost_during_a_request_is_an_operational_error_too(stoppable: str) -> None:
    assert ask() == "memory_app"
    embedded_postgres.stop(stoppable)
    with pytest.raises(OperationalError):
        ask()
    embedded_postgres.ensure_running(stoppable)
    connection.close_if_unusable_or_obsolete()  # as Django does between requests
    assert ask() == "memory_app"


@pytest.mark.django_db(transaction=True)
def test_pooled_connections_are_used_again(settings: Settings) -> None:
    pids = []
    for _ in range(30):
        pids.append(ask("SELECT pg_backend_pid()"))
        connection.close()
    assert len(set(pids)) <= settings.DATABASE_POOL_MAX_SIZE


@pytest.mark.django_db(transaction=True)
def test_a_forked_child_makes_connections_of_its_own_and_leaves_ours_alone() -> None:
    ours = ask("SELECT pg_backend_pid()")
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, str(ask("SELECT pg_backend_pid()")).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        theirs = file.read()
    os.waitpid(child, 0)
    assert theirs.isdigit()
    assert int(theirs) != ours
    assert ask("SELECT pg_backend_pid()") == ours


# --- The other roles ------------------------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize("role", ["owner", "census", "backup"])
def test_connect_as_is_that_role_in_the_same_database(role: str) -> None:
    with connections["default"].connect_as(role) as other:
        assert not other.autocommit
        row = other.execute("SELECT current_user, current_database()").fetchone()
    assert row == (f"memory_{role}", ask("SELECT current_database()"))


def test_a_role_without_a_url_names_the_variable(settings: Settings) -> None:
    settings.DATABASE_ROLES = {"app": settings.DATABASE_ROLES["app"]}
    with pytest.raises(ImproperlyConfigured, match="DATABASE_OWNER_URL"):
        connections["default"].connect_as("owner")


@pytest.mark.django_db
def test_connect_async_is_the_application() -> None:
    async def current_user() -> Any:
        async with await connections["default"].connect_async() as other:
            return await (await other.execute("SELECT current_user, current_database()")).fetchone()

    assert async_to_sync(current_user)() == ("memory_app", ask("SELECT current_database()"))


def test_a_url_keeps_its_options_and_gets_a_timeout() -> None:
    parsed = dsn.parse("postgresql://u:p%40ss@db:5433/memory?sslmode=verify-full&sslrootcert=/ca.pem", "DATABASE_URL")
    found = dsn.django_settings(parsed)
    assert (found["NAME"], found["USER"], found["PASSWORD"], found["HOST"], found["PORT"]) == (
        "memory",
        "u",
        "p@ss",
        "db",
        "5433",
    )
    assert found["OPTIONS"] == {"connect_timeout": "5", "sslmode": "verify-full", "sslrootcert": "/ca.pem"}


def test_a_wrong_url_names_the_variable_and_not_its_password() -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        dsn.parse("postgresql://user:hunter2@host:port:port/name?nonsense=1", "DATABASE_CENSUS_URL")
    assert "DATABASE_CENSUS_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_no_debug_page_shows_a_password(settings: Settings) -> None:
    secret = {role: parameters | {"password": "hunter2"} for role, parameters in settings.DATABASE_ROLES.items()}
    settings.DATABASE_ROLES = secret
    assert "hunter2" not in str(SafeExceptionReporterFilter().get_safe_settings())


# --- The embedded server --------------------------------------------------------------------------------------------
@pytest.fixture
def make_wrapper(
    make_reachable: Callable[[], Path], django_db_blocker: DjangoDbBlocker
) -> Iterator[Callable[..., DatabaseWrapper]]:
    """Makes connections, pooled or not, to an embedded server that nothing has started yet."""
    folder = make_reachable() / "data"
    made: list[DatabaseWrapper] = []

    def make(alias: str, **options: Any) -> DatabaseWrapper:
        settings_dict = {
            **connections["default"].settings_dict,
            **dsn.django_settings(embedded_postgres.dsn(folder, "app")),
            "EMBEDDED_DIR": str(folder),
        }
        settings_dict["OPTIONS"] = {**settings_dict["OPTIONS"], **options}
        made.append(DatabaseWrapper(settings_dict, alias=alias))
        return made[-1]

    with django_db_blocker.unblock():
        yield make
        for wrapper in made:
            wrapper.close()
            wrapper.close_pool()
    embedded_postgres.destroy(folder)


@pytest.mark.parametrize("options", [{}, {"pool": {"min_size": 1, "max_size": 2, "timeout": 2.0}}])
def test_the_embedded_server_starts_on_the_first_connection_and_again_when_killed(
    make_wrapper: Callable[..., DatabaseWrapper], options: dict[str, Any]
) -> None:
    wrapper = make_wrapper("embedded", **options)
    folder = wrapper.embedded_dir
    assert folder
    assert not Path(folder).exists()
    assert ask(wrapper=wrapper) == "memory_app"
    wrapper.close()
    for _ in range(2):
        embedded_postgres.stop(folder)
        assert ask(wrapper=wrapper) == "memory_app"
        wrapper.close()


def test_a_server_that_cannot_start_is_an_operational_error(
    make_wrapper: Callable[..., DatabaseWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("database.embedded_postgres.binaries.installed", lambda: None)
    with pytest.raises(OperationalError, match="make venv"):
        make_wrapper("embedded").ensure_connection()


def test_the_roles_of_the_embedded_server_are_computed_without_a_file(tmp_path: Path) -> None:
    roles = dsn.roles(dict.fromkeys(dsn.VARIABLES, ""), str(tmp_path / "absent"))
    assert {parameters["user"] for parameters in roles.values()} == {
        "memory_app",
        "memory_owner",
        "memory_census",
        "memory_backup",
    }
    assert all(psycopg.conninfo.make_conninfo(**parameters) for parameters in roles.values())


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_was_just_used_is_not_asked_but_looked_at(
    stoppable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    check = ConnectionPool.check_connection

    def noted(conn: psycopg.Connection) -> None:
        asked.append(conn)
        check(conn)

    monkeypatch.setattr(ConnectionPool, "check_connection", noted)
    full = connection.pool
    assert full is not None
    for _ in range(2 * full.max_size):  # each of the pool's in turn
        connection.close()
        assert ask() == "memory_app"
        before, asked[:] = len(asked), []
    assert not before
    connection.close()
    embedded_postgres.stop(stoppable)
    embedded_postgres.ensure_running(stoppable)
    assert ask() == "memory_app"
    assert asked
