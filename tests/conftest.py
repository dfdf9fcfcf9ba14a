"""The throw-away cluster that the suite runs on, connected as memory_app.

pytest-django's `db` and `transactional_db` work as usual: the owner makes and migrates the test database, and empties
it between transactional tests through our `flush`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from project import embedded_postgres
from tests.settings import CLUSTER_DIR


@pytest.fixture(scope="session")
def cluster_dir() -> Iterator[str]:
    """The data directory of the run's cluster, which runs."""
    # Passed by a server account of another name, entered by nobody else.
    os.chmod(CLUSTER_DIR, 0o711)  # noqa: S103
    embedded_postgres.ensure_running(CLUSTER_DIR, throwaway=True)
    yield CLUSTER_DIR
    embedded_postgres.destroy(CLUSTER_DIR)


@pytest.fixture(scope="session", autouse=True)
def _remove_cluster_at_any_end() -> Iterator[None]:
    """Should this process be killed, its pipe closes and the helper removes the cluster."""
    command = [sys.executable, "-m", "tests.remove_at_eof", CLUSTER_DIR]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as helper:
        yield
        assert helper.stdin
        helper.stdin.close()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(cluster_dir: str) -> None:
    """pytest-django's hook before it makes the test database: have a server to make it on."""
