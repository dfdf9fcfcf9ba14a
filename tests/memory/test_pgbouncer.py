"""Writing through PgBouncer with one server connection, and a pool of one: a second connection would wait for ever."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connections
from psycopg.conninfo import make_conninfo

from database.embedded_postgres.account import server_account
from keys.keyring import get_keyring
from keys.models import KeyRecord
from memory.models import MemoryChunk
from memory.rls import tenant_transaction
from tests.children import child_environment
from tests.settings import CLUSTER_DIR

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
ROOT = Path(__file__).resolve().parents[2]
PORT = "6432"
FIRST_WRITE = """
import django
django.setup()
from tests.factories import remember
remember("person:1", "doc", "text")
"""

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed."),
]


@pytest.fixture
def pgbouncer(make_reachable: Callable[[], Path]) -> Iterator[Path]:
    """The socket folder of a PgBouncer that has one connection to the suite's server."""
    folder, account = make_reachable(), server_account(Path(CLUSTER_DIR) / "absent")
    account.own(folder)
    _let_in(account.name)
    server = make_conninfo(**_server())
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{_server()['dbname']} = {server}\n[pgbouncer]\npool_mode = transaction\nauth_type = any\n"
        f"unix_socket_dir = {folder}\nunix_socket_mode = 0777\nlisten_addr =\nlisten_port = {PORT}\n"
        "max_db_connections = 1\nquery_wait_timeout = 8\n"
        "ignore_startup_parameters = options\n"
    )
    with subprocess.Popen(
        [PGBOUNCER, "--quiet", folder / "pgbouncer.ini"], stderr=subprocess.DEVNULL, **account.process_arguments()
    ) as process:
        while not (folder / f".s.PGSQL.{PORT}").exists() and process.poll() is None:
            time.sleep(0.02)
        yield folder
        process.terminate()


def _let_in(account: str) -> None:
    """Have the suite's server take the pooler's account, which cannot be root, for the application."""
    pid_file = next(Path(CLUSTER_DIR).rglob("postmaster.pid"))
    with (pid_file.parent / "pg_ident.conf").open("a") as ident:
        ident.write(f'memory "{account}" "{_server()["user"]}"\n')
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGHUP)


def _server() -> dict[str, str]:
    parameters = connections["default"].parameters_of("app")  # type: ignore[attr-defined]
    return {name: parameters[name] for name in ("host", "port", "dbname", "user") if name in parameters}


def test_the_first_write_of_a_process_needs_one_server_connection(pgbouncer: Path) -> None:
    connections["default"].close()
    through = {**_server(), "host": str(pgbouncer), "port": PORT}
    environment = {**child_environment(), "DATABASE_URL": make_conninfo(**through), "DATABASE_POOL_MAX_SIZE": "1"}
    environment["DATABASE_PREPARED_STATEMENTS"] = "false"  # for PgBouncer before 1.22
    # A write that asks for a second connection gets an error after PgBouncer's query_wait_timeout, or waits for ever.
    script = [sys.executable, "-c", FIRST_WRITE]
    done = subprocess.run(script, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "not counted" in done.stderr) == (0, False), done.stderr
    with tenant_transaction("person:1"):
        assert MemoryChunk.objects.count() == 1
    assert KeyRecord.objects.get(key_id=get_keyring().sealing.key_id).seals > 0
