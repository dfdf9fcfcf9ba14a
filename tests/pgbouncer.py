"""PgBouncer in transaction mode, with one connection to the suite's server."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections
from psycopg.conninfo import make_conninfo

from database.embedded_postgres.account import server_account
from tests.settings import CLUSTER_DIR

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
PORT = "6432"


@contextmanager
def running_pgbouncer(folder: Path) -> Iterator[dict[str, str]]:
    """Connection parameters of the application's role through a pooler whose socket is in `folder`, an empty one."""
    assert PGBOUNCER
    account = server_account(Path(CLUSTER_DIR) / "absent")
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
        try:
            while not (folder / f".s.PGSQL.{PORT}").exists() and process.poll() is None:
                time.sleep(0.02)
            yield {**_server(), "host": str(folder), "port": PORT}
        finally:
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
