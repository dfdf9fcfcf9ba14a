"""Folders that another account of this machine can reach."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def make_reachable() -> Iterator[Callable[[], Path]]:
    """Makes empty folders that the server's account may pass through, when that is not ours.

    pytest's own are no use: every run of pytest closes the folder above them to others, also under another run's feet.
    """
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="sealed-memory-test-")))
        made[-1].chmod(0o711)
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder)
