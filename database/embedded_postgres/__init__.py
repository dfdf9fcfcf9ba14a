"""The embedded Postgres: a whole server under one folder, for a machine without a `DATABASE_URL`.

    ensure_running(data_dir)    start it (and make it, the first time); returns at once when it runs
    stop(data_dir)              stop it; no error when it does not run
    status(data_dir)            what runs, for a person
    dsn(data_dir, "app")        the connection parameters of a role, computed from the path alone
    destroy(data_dir)           stop it and remove all its data

Layout of a data directory: `postgres/` (the cluster; a link where the server's account cannot reach the folder),
`postgres.lock` (held by whoever starts or stops it), `postgres.running` (held by the server), `postgres.log`.
Why it is done so is in `docs/decisions/0001-embedded-postgres.md`.
"""

from .exceptions import EmbeddedPostgresError
from .layout import Layout, dsn
from .server import destroy, ensure_running, is_running, status, stop

__all__ = ["EmbeddedPostgresError", "Layout", "destroy", "dsn", "ensure_running", "is_running", "status", "stop"]
