"""A Postgres as somebody else runs it: one superuser, who knows nothing of us, and passwords for everybody."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from database.embedded_postgres.account import server_account
from database.embedded_postgres.binaries import find

SUPERUSER = "admin"


@dataclass(frozen=True)
class BarePostgres:
    """Where it listens (a socket's folder), its programs and its log. Its superuser's password is its name."""

    host: str
    programs: Path
    log: Path

    def connect(
        self, user: str = SUPERUSER, password: str = SUPERUSER, database: str = "postgres"
    ) -> psycopg.Connection:
        return psycopg.connect(host=self.host, dbname=database, user=user, password=password, autocommit=True)


@contextmanager
def running_bare_postgres(folder: Path) -> Iterator[BarePostgres]:
    """One in `folder`, an empty one that the server's account can reach."""
    account = server_account(folder / "absent")
    arguments, programs, data = account.process_arguments(), find(account), folder / "d"
    data.mkdir()
    account.own(data)
    password = folder / "password"
    password.write_text(SUPERUSER)
    initdb = [programs / "initdb", "-D", data, "-U", SUPERUSER, "--no-sync", "-A", "scram-sha-256"]
    subprocess.run([*initdb, f"--pwfile={password}"], check=True, capture_output=True, **arguments)
    server = [programs / "postgres", "-D", data, "-k", data, "-c", "listen_addresses=", "-c", "fsync=off"]
    log = folder / "log"
    with log.open("wb") as written, subprocess.Popen(server, stderr=written, **arguments) as process:
        while not _is_ready(data) and process.poll() is None:
            time.sleep(0.02)
        try:
            yield BarePostgres(host=str(data), programs=programs, log=log)
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: it does not wait for clients


def _is_ready(data: Path) -> bool:
    try:
        return (data / "postmaster.pid").read_text().rstrip().endswith("ready")
    except FileNotFoundError:
        return False
