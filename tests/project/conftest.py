"""Folders that another account of this machine can reach."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def make_reachable(run_dir: Path) -> Callable[[], Path]:
    """Makes empty folders that the server's account may pass through, when that is not ours."""

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(dir=run_dir))
        folder.chmod(0o711)
        return folder

    return make
