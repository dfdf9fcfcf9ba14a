"""Paths and connection parameters of the embedded Postgres, computed from its data directory alone."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DATABASE = "memory"
ROLES = {
    "owner": "memory_owner",
    "app": "memory_app",
    "census": "memory_census",
    "backup": "memory_backup",
}
# Fixed, not TMPDIR: two processes with different environments must find the same server.
SOCKET_ROOT = Path("/tmp")  # noqa: S108 (the folder below it is checked for owner and mode before use)


@dataclass(frozen=True)
class Layout:
    """The paths of one embedded Postgres."""

    data_dir: Path

    @classmethod
    def of(cls, data_dir: str | os.PathLike[str]) -> "Layout":
        return cls(Path(os.path.realpath(data_dir)))

    @property
    def cluster(self) -> Path:
        """The Postgres data directory, or a link to it."""
        return self.data_dir / "postgres"

    @property
    def pgdata(self) -> Path:
        """The Postgres data directory itself, as the server names it."""
        return Path(os.path.realpath(self.cluster))

    @property
    def lock(self) -> Path:
        return self.data_dir / "postgres.lock"

    @property
    def running(self) -> Path:
        """Locked by the server and its children for as long as one of them lives."""
        return self.data_dir / "postgres.running"

    @property
    def log(self) -> Path:
        return self.data_dir / "postgres.log"

    @cached_property
    def socket_dir(self) -> Path:
        """The socket's folder, of a short path: the address of a socket may have about 100 bytes at most."""
        name = hashlib.sha256(f"{os.geteuid()}:{self.data_dir}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return SOCKET_ROOT / f"sealed-memory-{name}"

    @property
    def socket(self) -> Path:
        """Where the server listens: Postgres names the socket after its default port."""
        return self.socket_dir / ".s.PGSQL.5432"


def dsn(data_dir: str | os.PathLike[str], role: str) -> dict[str, str]:
    """Connection parameters of `role` ("owner", "app", "census" or "backup"), as `psycopg.connect` takes them."""
    return {"host": str(Layout.of(data_dir).socket_dir), "dbname": DATABASE, "user": ROLES[role]}
