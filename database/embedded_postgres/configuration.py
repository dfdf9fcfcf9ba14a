"""Writes the server's configuration files, before every start.

An administrator's own settings go into `local.conf` in the cluster's folder, which is read last.
"""

import os
import shutil
from pathlib import Path

from .account import Account, caller_name
from .layout import ROLES, Layout

POSTGRESQL_CONF = """\
# Written at every start. Put your own settings into local.conf beside this file.
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
max_connections = 60
shared_buffers = 256MB
work_mem = 16MB
maintenance_work_mem = 256MB
effective_cache_size = 1GB
random_page_cost = 1.1
max_wal_size = 2GB
jit = off
dynamic_shared_memory_type = {dynamic_shared_memory}
timezone = 'UTC'
log_timezone = 'UTC'
# A statement or a detail line would carry what our users store.
log_min_error_statement = panic
log_error_verbosity = terse
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_checkpoints = off
include_if_exists = 'local.conf'
"""

LOCAL_CONF = """\
# Your own settings: read after postgresql.conf, and never written again.
"""

THROWAWAY_CONF = """\
# A cluster for one test run: nothing in it has to survive a power cut.
fsync = off
full_page_writes = off
shared_buffers = 64MB
autovacuum_naptime = 5min
"""

# One line: every other way in, and every other user of this machine, is refused.
PG_HBA_CONF = "local all all peer map=memory\n"


def write(layout: Layout, pgdata: Path, account: Account) -> None:
    """Write the configuration of the server in `pgdata`."""
    settings = {"socket_dir": layout.socket_dir, "dynamic_shared_memory": _dynamic_shared_memory()}
    _write(pgdata / "postgresql.conf", POSTGRESQL_CONF.format(**settings), account)
    _write(pgdata / "pg_hba.conf", PG_HBA_CONF, account)
    _write(pgdata / "pg_ident.conf", "".join(_map_line(role) for role in ROLES.values()), account)


def write_local(pgdata: Path, account: Account, *, throwaway: bool) -> None:
    """Write the file for an administrator's own settings, once; a throw-away cluster trades durability for speed."""
    _write(pgdata / "local.conf", THROWAWAY_CONF if throwaway else LOCAL_CONF, account)


def _map_line(role: str) -> str:
    # Only the caller connects; the account that the server runs as has no reason to. Quoted: no pattern, no keyword.
    return f'memory "{caller_name()}" "{role}"\n'


def _dynamic_shared_memory() -> str:
    """Containers give /dev/shm 64 MB by default, too little for a parallel index build; files always work."""
    try:
        roomy = shutil.disk_usage("/dev/shm").total >= 1 << 30  # noqa: S108 (asked for its size only)
    except OSError:
        return "mmap"
    return "posix" if roomy else "mmap"


def _write(path: Path, content: str, account: Account) -> None:
    staging = path.with_name(path.name + ".new")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(content)
    account.own(staging)
    staging.replace(path)
