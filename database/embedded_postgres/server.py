"""Starting, finding and stopping the server of one data directory."""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from . import binaries, bootstrap, configuration
from .account import Account, server_account
from .exceptions import EmbeddedPostgresError
from .layout import Layout

POLL_SECONDS = 0.01
# How long to wait for the remaining processes of a killed server to exit.
ORPHAN_SECONDS = 15.0
STOP_SECONDS = 30.0
NOTICE_SECONDS = 1.5
LOG_BYTES = 10 << 20

# The servers that this process started, by cluster: kept to reap one that has ended.
_children: dict[Path, subprocess.Popen[bytes]] = {}


def ensure_running(data_dir: str | os.PathLike[str], *, throwaway: bool = False) -> None:
    """Start the server of `data_dir` unless it accepts connections already; create its cluster when there is none.

    Safe to call from any number of processes at once. With `throwaway` a new cluster trades durability for speed
    and its owner may create databases: for test runs. Raises EmbeddedPostgresError, which says what to do.
    """
    layout = Layout.of(data_dir)
    if _is_ready(layout):
        return
    with _locked(layout):
        if not _is_ready(layout):
            _start(layout, throwaway=throwaway)


def is_running(data_dir: str | os.PathLike[str]) -> bool:
    """Whether the server of `data_dir` runs and accepts connections."""
    return _is_ready(Layout.of(data_dir))


def status(data_dir: str | os.PathLike[str]) -> str:
    """One line for a person: what runs, as whom, and where."""
    layout = Layout.of(data_dir)
    process = _postmaster(layout.pgdata)
    if process is None:
        return f"stopped ({'cluster' if layout.cluster.exists() else 'no cluster yet'} in {layout.cluster})"
    state = _pid_file(layout.pgdata)[-1].strip()
    return f"{state}: pid {process.pid} as {process.username()}, data in {layout.pgdata}, socket in {layout.socket_dir}"


def stop(data_dir: str | os.PathLike[str]) -> bool:
    """Stop the server of `data_dir`; open transactions are rolled back. Returns whether there was one to stop."""
    layout = Layout.of(data_dir)
    if not layout.cluster.exists():
        return False
    with _locked(layout):
        return _stop(layout)


def destroy(data_dir: str | os.PathLike[str]) -> None:
    """Stop the server of `data_dir` and remove everything in it. There is no way back."""
    layout = Layout.of(data_dir)
    if not layout.data_dir.exists():
        return
    pgdata = layout.pgdata
    with _locked(layout):
        _stop(layout, signal.SIGQUIT)
        # The cluster may be a link that an operator made: then the folder above its target is not ours to remove.
        ours = pgdata.parent.parent == binaries.SHARED_ROOT
        shutil.rmtree(pgdata.parent if ours else pgdata, ignore_errors=True)
        shutil.rmtree(layout.socket_dir, ignore_errors=True)
        shutil.rmtree(layout.data_dir, ignore_errors=True)


# --- Starting -------------------------------------------------------------------------------------------------------
def _start(layout: Layout, *, throwaway: bool) -> None:
    account = server_account(layout.cluster)
    programs = binaries.find(account)
    if _says_ready(layout):
        # Its socket is gone: a cleaner of /tmp took it, or an earlier server whose folder was deleted under it.
        _stop(layout)
    if not layout.cluster.exists():
        with _notice(f"Creating the embedded Postgres in {layout.data_dir}"):
            bootstrap.create(layout, programs, account, throwaway=throwaway)
    _refuse_another_major(layout.pgdata)
    _make_socket_dir(layout.socket_dir, account)
    configuration.write(layout, layout.pgdata, account)
    with _notice("Starting the embedded Postgres"):
        _launch(layout, programs, account)


def _refuse_another_major(pgdata: Path) -> None:
    """A cluster is read by the major version that made it, and by no other."""
    made_by = (pgdata / "PG_VERSION").read_text().strip()
    if made_by != binaries.MAJOR:
        raise EmbeddedPostgresError(
            f"{pgdata} was made by Postgres {made_by}; the installed programs are Postgres {binaries.MAJOR} and cannot "
            "read it. Nothing was changed. docs/howto/upgrade.md says how to bring the data over."
        )


def _launch(layout: Layout, programs: Path, account: Account) -> None:
    """Start the server and wait until it accepts connections, however long its crash recovery takes."""
    with _alone(layout) as descriptor:
        _remove_stale_locks(layout)
        if former := _children.pop(layout.pgdata, None):
            former.wait()
        logged = _log_size(layout.log)
        process = _children[layout.pgdata] = _spawn(layout, programs, account, descriptor)
    while process.poll() is None:
        if _is_ready(layout):
            return
        time.sleep(POLL_SECONDS)
    output = layout.log.read_bytes()[logged:].decode(errors="replace")
    raise EmbeddedPostgresError(f"The embedded Postgres did not start. Its log:\n{output.strip()[-2000:]}")


def _log_size(log: Path) -> int:
    """The log's size, after emptying one that grew too long: no server writes to it now."""
    size = log.stat().st_size if log.exists() else 0
    if size > LOG_BYTES:
        os.truncate(log, 0)
        return 0
    return size


@contextmanager
def _alone(layout: Layout) -> Iterator[int]:
    """Wait until no process of an earlier server is left, and yield the descriptor of a lock that proves it.

    The server and its children inherit the descriptor and hold the lock as long as one of them lives. So no second
    server starts while queries of a killed one still run, or while another container, whose pids are unknown here,
    runs one.
    """
    with _opened(layout.running) as descriptor:
        give_up = time.monotonic() + ORPHAN_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise EmbeddedPostgresError(
                        f"Processes that we cannot see or stop use {layout.pgdata}: another container's server?"
                    ) from None
            time.sleep(POLL_SECONDS)
        yield descriptor


def _spawn(layout: Layout, programs: Path, account: Account, lock: int) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in our terminal is not meant for the server.
    with _opened(layout.log, os.O_APPEND) as log:
        return subprocess.Popen(  # noqa: S603
            [programs / "postgres", "-D", layout.pgdata],
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[lock],
            **account.process_arguments(),
        )


def _make_socket_dir(folder: Path, account: Account) -> None:
    """Create the folder of the socket. Refuse an existing one that another user could listen in, in our place."""
    try:
        folder.mkdir(mode=0o700)
        account.own(folder)
    except FileExistsError:
        pass
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (account.uid, os.geteuid()) or found.st_mode & 0o077:
        raise EmbeddedPostgresError(f"{folder} is not a private folder of {account.name}: remove it.")
    if found.st_uid != account.uid:
        account.own(folder)


# --- Finding --------------------------------------------------------------------------------------------------------
def _is_ready(layout: Layout) -> bool:
    return _says_ready(layout) and layout.socket.exists()


def _says_ready(layout: Layout) -> bool:
    lines = _pid_file(layout.pgdata)
    return len(lines) >= 8 and lines[7].strip() == "ready" and _postmaster(layout.pgdata) is not None


def _pid_file(pgdata: Path) -> list[str]:
    """The lines of postmaster.pid: pid, data directory, start time, port, socket folder, address, memory key, state."""
    try:
        return (pgdata / "postmaster.pid").read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        raise EmbeddedPostgresError(
            f"{pgdata} belongs to another user. Run as the user who made it, or set EMBEDDED_POSTGRES_DIR."
        ) from None


def _postmaster(pgdata: Path) -> psutil.Process | None:
    """The running server of `pgdata`, or None. A zombie or a recycled pid is no server."""
    if child := _children.get(pgdata):
        child.poll()
    lines = _pid_file(pgdata)
    if not lines or not lines[0].strip().isdigit():
        return None
    try:
        process = psutil.Process(int(lines[0]))
        serves = process.status() != psutil.STATUS_ZOMBIE and _serves(process, pgdata)
    except psutil.Error:
        return None
    return process if serves else None


def _serves(process: psutil.Process, pgdata: Path) -> bool:
    # The command line is open to everybody. A container's root may not ask for the folder another account works in.
    return process.cmdline()[1:3] == ["-D", str(pgdata)] and process.uids().effective == pgdata.stat().st_uid


def _remove_stale_locks(layout: Layout) -> None:
    """Remove the lock files of a server that is gone: while the pid in one is a zombie's or another program's, Postgres
    would refuse to start."""
    (layout.pgdata / "postmaster.pid").unlink(missing_ok=True)
    for leftover in layout.socket_dir.iterdir():
        leftover.unlink()


# --- Stopping -------------------------------------------------------------------------------------------------------
def _stop(layout: Layout, how: signal.Signals = signal.SIGINT) -> bool:
    process = _postmaster(layout.pgdata)
    if process is None:
        return False
    process.send_signal(how)
    if not _wait_for_end(process, layout.pgdata):
        process.send_signal(signal.SIGQUIT)
        if not _wait_for_end(process, layout.pgdata):
            raise EmbeddedPostgresError(f"The embedded Postgres (pid {process.pid}) does not stop. See {layout.log}.")
    return True


def _wait_for_end(process: psutil.Process, pgdata: Path) -> bool:
    give_up = time.monotonic() + STOP_SECONDS
    while not _is_gone(process, pgdata):
        if time.monotonic() > give_up:
            return False
        time.sleep(POLL_SECONDS)
    if child := _children.get(pgdata):
        child.poll()  # it may have become a zombie only after `_is_gone` asked
    return True


def _is_gone(process: psutil.Process, pgdata: Path) -> bool:
    """Whether the process has ended; a zombie has, though its parent has not reaped it."""
    if child := _children.get(pgdata):
        child.poll()
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# --- Locks and notices ----------------------------------------------------------------------------------------------
@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Hold the data directory's lock, which the kernel releases when its holder dies."""
    # Under root, the server's account must be able to pass through the folder; only root may read or write in it.
    layout.data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    with _opened(layout.lock) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def _opened(path: Path, flags: int = 0) -> Iterator[int]:
    """A descriptor of `path`, made when absent, for its owner alone."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except PermissionError:
        raise EmbeddedPostgresError(
            f"{path.parent} belongs to another user. Run as the user who made it, or set EMBEDDED_POSTGRES_DIR."
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _notice(message: str) -> Iterator[None]:
    """Say on stderr what we wait for, once it takes longer than NOTICE_SECONDS."""
    timer = threading.Timer(NOTICE_SECONDS, lambda: print(f"{message} ...", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
