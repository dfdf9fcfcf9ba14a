"""Creates a cluster: initdb and our roles, in a staging folder that is renamed when it is complete.

The superuser is used only in Postgres' single-user mode, without a socket, and cannot log in afterwards.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from database import setup_sql

from . import configuration
from .account import Account
from .binaries import make_shared_root
from .exceptions import EmbeddedPostgresError
from .layout import DATABASE, Layout

STAGING_PREFIX = "postgres.new-"
SUPERUSER = "bootstrap"


def create(layout: Layout, programs: Path, account: Account, *, throwaway: bool) -> None:
    """Make the cluster of `layout`. The caller holds its lock. Whatever an interrupted attempt left is removed."""
    _remove_leftovers(layout.data_dir)
    home = _home(layout, account)
    staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=home))
    account.own(staging)
    try:
        _initdb(programs, staging, account, throwaway=throwaway)
        _run_setup(programs, staging, account, throwaway=throwaway)
        configuration.write(layout, staging, account)
        configuration.write_local(staging, account, throwaway=throwaway)
        _publish(staging, layout, home)
    except BaseException:
        shutil.rmtree(staging if home == layout.data_dir else home, ignore_errors=True)
        raise


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(f"{STAGING_PREFIX}*"):
        shutil.rmtree(leftover)


def _home(layout: Layout, account: Account) -> Path:
    """The folder to make the cluster in: the data directory, or where the server's account can reach it."""
    if not account.is_other or account.can_enter(layout.data_dir):
        return layout.data_dir
    home = Path(tempfile.mkdtemp(prefix="cluster-", dir=make_shared_root()))
    home.chmod(0o711)
    return home


def _publish(staging: Path, layout: Layout, home: Path) -> None:
    if home == layout.data_dir:
        staging.rename(layout.cluster)
        return
    staging.rename(home / "postgres")
    layout.cluster.unlink(missing_ok=True)  # a link whose target somebody removed
    layout.cluster.symlink_to(home / "postgres")


def _initdb(programs: Path, pgdata: Path, account: Account, *, throwaway: bool) -> None:
    options = ["--auth=reject", "--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if throwaway:
        options.append("--no-sync")
    command: list[str | Path] = [programs / "initdb", "--pgdata", pgdata, "--username", SUPERUSER, *options]
    _run("initdb", command, account)


def _run_setup(programs: Path, pgdata: Path, account: Account, *, throwaway: bool) -> None:
    statements = [
        *setup_sql.create_roles(),
        *setup_sql.extensions(),
        *setup_sql.schema_privileges(),
        f"CREATE DATABASE {DATABASE} OWNER memory_owner",
        *setup_sql.database_privileges(DATABASE),
        "REVOKE ALL ON DATABASE template1, postgres FROM PUBLIC",
        *(setup_sql.test_privileges() if throwaway else []),
        f"ALTER ROLE {SUPERUSER} NOLOGIN",
    ]
    # In template1, of which every database (a test database too) is a copy, with its extension and its privileges.
    command: list[str | Path] = [
        programs / "postgres",
        "--single",
        "-j",
        "-D",
        pgdata,
        "-c",
        "exit_on_error=true",
        "template1",
    ]
    _run("setting the roles up", command, account, ";\n\n".join(statements) + ";\n\n")


def _run(step: str, command: Sequence[str | Path], account: Account, script: str = "") -> None:
    arguments = account.process_arguments() | {"input": script}
    del arguments["stdin"]  # `input` takes its place
    done = subprocess.run(  # noqa: S603
        command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **arguments
    )
    if done.returncode:
        raise EmbeddedPostgresError(f"The embedded Postgres: {step} failed.\n{done.stdout.strip()[-2000:]}")
