"""The operating-system account that the server runs as.

Postgres refuses to run as root. A plain user runs it as itself; root runs it as an unprivileged account.
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .exceptions import EmbeddedPostgresError

# Tried in order: the account of a packaged Postgres, one that an operator added for this service, one that every system
# has. This code creates no account: that is for the operator to do.
CANDIDATES = ("postgres", "sealed-memory", "nobody")


@dataclass(frozen=True)
class Account:
    """An operating-system account."""

    uid: int
    gid: int
    name: str

    @property
    def is_other(self) -> bool:
        """Whether it is not the account of this process, so that a process for it has to switch."""
        return self.uid != os.geteuid()

    def process_arguments(self) -> dict[str, Any]:
        """Arguments for `subprocess` that make a process run as this account, with nothing of our environment."""
        switch = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}
        return {**switch, "cwd": "/", "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, "stdin": subprocess.DEVNULL}

    def can_enter(self, folder: Path) -> bool:
        """Whether it may use files in `folder`, every folder above it included. Asked of the system, not guessed."""
        command = ["test", "-x", str(folder)]
        try:
            return subprocess.run(command, check=False, **self.process_arguments()).returncode == 0  # noqa: S603
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedPostgresError(
                f"Postgres does not run as root, and we may not switch to the account {self.name}: {error}"
            ) from error

    def own(self, path: Path) -> None:
        if self.is_other:
            os.chown(path, self.uid, self.gid)


def caller_name() -> str:
    """Our own account's name, which peer authentication compares."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise EmbeddedPostgresError(
            f"User id {os.geteuid()} has no name on this system, and Postgres needs one to know its callers. "
            "Run as a named user, or give a DATABASE_URL."
        ) from None


def server_account(cluster: Path) -> Account:
    """The account that runs the server of `cluster`: its owner; before it exists, ours, or for root another one.

    Raises EmbeddedPostgresError when another user owns the cluster and we are not root, or when root finds no account.
    """
    caller = Account(os.geteuid(), os.getegid(), caller_name())
    if cluster.exists():
        return _owner_of(cluster, caller)
    return caller if caller.uid != 0 else _unprivileged()


def _owner_of(cluster: Path, caller: Account) -> Account:
    owner = cluster.stat().st_uid
    if owner == caller.uid:
        return caller
    entry = _lookup(owner)
    if caller.uid != 0 or entry is None:
        raise EmbeddedPostgresError(
            f"{cluster} belongs to user id {owner}, not to {caller.name}. "
            "Run as the user who made it, or set EMBEDDED_POSTGRES_DIR to a folder of your own."
        )
    return entry


def _unprivileged() -> Account:
    for name in CANDIDATES:
        if account := _lookup(name):
            return account
    raise EmbeddedPostgresError(
        f"Postgres does not run as root, and there is no account named {' or '.join(CANDIDATES)}: "
        "add one (`useradd --system postgres`), run as a plain user, or set DATABASE_URL."
    )


def _lookup(account: str | int) -> Account | None:
    try:
        entry = pwd.getpwnam(account) if isinstance(account, str) else pwd.getpwuid(account)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid, entry.pw_name)
