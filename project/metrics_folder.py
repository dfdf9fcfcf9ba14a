"""The folder in which the processes of one server collect their metrics for Prometheus.

Each server that is started has its own, inside PROMETHEUS_MULTIPROC_DIR, so two servers of one checkout do not mix. A
running server holds the lock on its folder's `owner` file; the next start deletes folders whose lock is free.
"""

import fcntl
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

OWNER = "owner"

_owned: list[IO[str]] = []
"""Files kept open: their locks end with the last process of the server, killed or not."""


@cache
def claim() -> Path:
    """Make this server's folder and name it in the environment. To be called before prometheus_client is imported."""
    base = Path(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ".data/metrics")).absolute()
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (base / ".lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        _sweep(base)
        folder = Path(tempfile.mkdtemp(prefix="instance-", dir=base))
        owner = (folder / OWNER).open("w")
        fcntl.flock(owner, fcntl.LOCK_EX)
    _owned.append(owner)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return folder


def _sweep(base: Path) -> None:
    """Remove the folders of servers that have ended."""
    for folder in base.glob("instance-*"):
        if not _has_owner(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _has_owner(folder: Path) -> bool:
    try:
        with (folder / OWNER).open("w") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
