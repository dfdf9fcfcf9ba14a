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
# How long the processes of a killed server may take to notice and leave.
ORPHAN_SECONDS = 15.0
STOP_SECONDS = 30.0
NOTICE_SECONDS = 1.5

# The servers that this process started, by cluster: kept so that a dead one does not stay a zombie of ours.
_children: dict[Path, subprocess.Popen[bytes]] = {}


def ensure_running(data_dir: str | os.PathLike[str], *, throwaway: bool = False) -> None:
    """Have the server of `data_dir` run and accept connections; make its cluster first where there is none.

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
        home = pgdata.parent if layout.cluster.is_symlink() else pgdata
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(layout.socket_dir, ignore_errors=True)
        shutil.rmtree(layout.data_dir, ignore_errors=True)


# --- Starting -------------------------------------------------------------------------------------------------------
def _start(layout: Layout, *, throwaway: bool) -> None:
    account = server_account(layout.cluster)
    programs = binaries.find(account)
    if not layout.cluster.exists():
        with _notice(f"Creating the embedded Postgres in {layout.data_dir}"):
            bootstrap.create(layout, programs, account, throwaway=throwaway)
    _make_socket_dir(layout.socket_dir, account)
    configuration.write(layout, layout.pgdata, account)
    with _notice("Starting the embedded Postgres"):
        _remove_foreign_lock(layout.pgdata)
        _launch(layout, programs, account)


def _launch(layout: Layout, programs: Path, account: Account) -> None:
    """Start the server and wait until it accepts connections, however long its crash recovery takes."""
    give_up = time.monotonic() + ORPHAN_SECONDS
    while True:
        logged = layout.log.stat().st_size if layout.log.exists() else 0
        process = _children[layout.pgdata] = _spawn(layout, programs, account)
        while process.poll() is None:
            if _is_ready(layout):
                return
            time.sleep(POLL_SECONDS)
        # Processes of a killed server hold its shared memory until they notice: try again for a while.
        output = layout.log.read_bytes()[logged:].decode(errors="replace")
        if "shared memory" not in output or time.monotonic() > give_up:
            raise EmbeddedPostgresError(f"The embedded Postgres did not start. Its log:\n{output.strip()[-2000:]}")
        time.sleep(POLL_SECONDS * 10)


def _spawn(layout: Layout, programs: Path, account: Account) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C in our terminal is not meant for the server.
    with layout.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603
            [programs / "postgres", "-D", layout.pgdata],
            stdout=log,
            stderr=log,
            start_new_session=True,
            **account.process_arguments(),
        )


def _make_socket_dir(folder: Path, account: Account) -> None:
    """Make the folder of the socket, or refuse one that somebody else could have made to listen in our place."""
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
    # A postmaster and its children work in the data directory; nobody else does.
    return process.name().startswith("postgres") and process.cwd() == str(pgdata)


def _remove_foreign_lock(pgdata: Path) -> None:
    """Remove a postmaster.pid whose pid is now a zombie or another program, at which Postgres would refuse to start.

    A pid that is gone Postgres handles itself. Should a killed server's children still run, Postgres finds them by
    the data directory's shared memory, lock file or not.
    """
    if _pid_file(pgdata) and _postmaster(pgdata) is None:
        (pgdata / "postmaster.pid").unlink(missing_ok=True)


# --- Stopping -------------------------------------------------------------------------------------------------------
def _stop(layout: Layout, how: signal.Signals = signal.SIGINT) -> bool:
    process = _postmaster(layout.pgdata)
    if process is None:
        return False
    process.send_signal(how)
    if not _wait_for_end(layout.pgdata, STOP_SECONDS):
        process.send_signal(signal.SIGQUIT)
        if not _wait_for_end(layout.pgdata, STOP_SECONDS):
            raise EmbeddedPostgresError(f"The embedded Postgres (pid {process.pid}) does not stop. See {layout.log}.")
    return True


def _wait_for_end(pgdata: Path, seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while _postmaster(pgdata) is not None:
        if time.monotonic() > give_up:
            return False
        time.sleep(POLL_SECONDS)
    return True


# --- Around it ------------------------------------------------------------------------------------------------------
@contextmanager
def _locked(layout: Layout) -> Iterator[None]:
    """Hold the data directory's lock, which the kernel releases when its holder dies."""
    # Root's server account has to pass through a folder that root makes; nobody but root reads or writes there.
    layout.data_dir.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        raise EmbeddedPostgresError(
            f"{layout.data_dir} belongs to another user. Run as the user who made it, or set EMBEDDED_POSTGRES_DIR."
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _notice(message: str) -> Iterator[None]:
    """Say on stderr what we wait for, when it takes long enough for a person to wonder."""
    timer = threading.Timer(NOTICE_SECONDS, lambda: print(f"{message} ...", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
