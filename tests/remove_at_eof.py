"""Stop every embedded Postgres below a folder, and remove it, when the process that holds our standard input ends."""

import shutil
import sys
from pathlib import Path

from database import embedded_postgres


def remove(folder: Path) -> None:
    for lock in list(folder.rglob("postgres.lock")):
        embedded_postgres.destroy(lock.parent)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.read()
    remove(Path(sys.argv[1]))
