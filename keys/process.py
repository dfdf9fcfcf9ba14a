"""Names of this process and of its operator, as leases, runs and heartbeats record them."""

import getpass
import os
import socket
from functools import cache
from uuid import UUID, uuid4


def process_id() -> UUID:
    """An id of this process alone: a forked child has another one."""
    return _process_id(os.getpid())


def process_name() -> str:
    """`host:pid/8 hex`: readable, and unlike that of a process which once had the same pid."""
    return f"{socket.gethostname()}:{os.getpid()}/{process_id().hex[:8]}"


def operator() -> str:
    """The person who runs this command, as `shell:user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without an account
        user = str(os.getuid())
    return f"shell:{user}@{socket.gethostname()}"


@cache
def _process_id(pid: int) -> UUID:
    return uuid4()
