"""The script for a Postgres of your own, run by psql on one that knows nothing of us."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command

from database.embedded_postgres.account import server_account
from database.embedded_postgres.binaries import find

PASSWORDS = {f"MEMORY_{role}_PASSWORD": f"it's {role}" for role in ("OWNER", "APP", "CENSUS", "BACKUP")}


@pytest.fixture
def bare_postgres(make_reachable: Callable[[], Path]) -> Iterator[dict[str, Any]]:
    """A Postgres with its superuser alone, who gets in as the account that runs it; everybody else by password."""
    folder = make_reachable()
    account = server_account(folder / "absent")
    arguments, programs, data = account.process_arguments(), find(account), folder / "d"
    data.mkdir()
    password = folder / "password"
    password.write_text("admin")
    account.own(data)
    initdb = [
        programs / "initdb",
        "-D",
        data,
        "-U",
        "admin",
        "--no-sync",
        "-A",
        "scram-sha-256",
        f"--pwfile={password}",
    ]
    subprocess.run(initdb, check=True, capture_output=True, **arguments)
    server = [programs / "postgres", "-D", data, "-k", data, "-c", "listen_addresses=", "-c", "fsync=off"]
    with subprocess.Popen(server, stderr=subprocess.DEVNULL, **arguments) as process:
        while not (data / ".s.PGSQL.5432").exists() and process.poll() is None:
            time.sleep(0.02)
        yield {"psql": programs / "psql", "host": str(data)}
        process.terminate()


def test_the_script_prepares_a_server_and_no_password_is_in_it(
    bare_postgres: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("database_setup", print_sql=True, database="memory")
    script = capsys.readouterr().out
    assert "PASSWORD :'app_password'" in script
    host = bare_postgres["host"]
    environment = os.environ | PASSWORDS | {"PGPASSWORD": "admin", "PGHOST": host, "PGUSER": "admin"}
    command = [bare_postgres["psql"], "--no-psqlrc", "--quiet", "--dbname=postgres"]
    done = subprocess.run(command, input=script, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")

    with psycopg.connect(host=host, dbname="memory", user="memory_owner", password="it's OWNER") as owner:
        owner.execute("CREATE TABLE sample (id int, place vector(2))")
    with psycopg.connect(host=host, dbname="memory", user="memory_app", password="it's APP") as app:
        app.execute("INSERT INTO sample VALUES (1, '[1,2]')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("TRUNCATE sample")
