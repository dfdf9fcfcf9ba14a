"""The throw-away cluster that the suite runs on, connected as memory_app.

pytest-django's `db` and `transactional_db` work as usual: the owner makes and migrates the test database, and empties
it between transactional tests through our `flush`.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from database import embedded_postgres
from rerank.weights.random_model import write_random_model
from tests.settings import CLUSTER_DIR, RUN_DIR


@pytest.fixture(scope="session", autouse=True)
def run_dir() -> Iterator[Path]:
    """The folder of everything the run leaves on the disk, servers included.

    A helper removes it when its pipe from us closes: at our end, or when we are killed.
    """
    folder = Path(RUN_DIR)
    folder.mkdir()
    # Passed by a server account of another name, read by nobody else. (pytest's own temporary folders are no use:
    # every run of pytest closes the folder above them, also under another run's feet.)
    folder.chmod(0o711)
    command = [sys.executable, "-m", "tests.remove_at_eof", RUN_DIR]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd=root) as helper:
        yield folder
        assert helper.stdin
        helper.stdin.close()


@pytest.fixture(scope="session")
def cluster_dir(run_dir: Path) -> Iterator[str]:
    """The data directory of the run's cluster, which runs."""
    embedded_postgres.ensure_running(CLUSTER_DIR, throwaway=True)
    yield CLUSTER_DIR
    embedded_postgres.destroy(CLUSTER_DIR)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(cluster_dir: str) -> None:
    """pytest-django's hook before it makes the test database: have a server to make it on."""


@pytest.fixture(scope="session")
def make_reachable(run_dir: Path) -> Callable[[], Path]:
    """Makes empty folders that the server's account may pass through, when that is not ours."""

    def make() -> Path:
        folder = Path(tempfile.mkdtemp(dir=run_dir))
        folder.chmod(0o711)
        return folder

    return make


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of TinyBERT's shape with random weights."""
    return write_random_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _readable_names_first(request: pytest.FixtureRequest) -> None:
    """Before the fixtures of a module that store rows, where a test's mark asks for it."""
    if "readable_names" in request.fixturenames:
        request.getfixturevalue("readable_names")


@pytest.fixture
def readable_names(settings: Settings) -> None:
    """Names of documents and sources as the client gave them, for tests that find rows by SQL."""
    settings.MEMORY_SEALED_NAMES = False


@pytest.fixture
def fresh_reranker(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[None]:
    """Nothing loaded, the switch on; nothing left running."""
    from rerank import flag, runtime

    settings.RERANK_ENABLED = True
    monkeypatch.setattr(flag, "switch", flag.Switch(read=lambda: True))
    runtime.reset()
    yield
    runtime.reset()


@pytest.fixture
def onnx(fresh_reranker: None, model_dir: Path, settings: Settings) -> None:
    """The random cross-encoder, loaded."""
    from rerank import runtime

    settings.RERANK_MODEL = str(model_dir)
    settings.RERANK_BACKEND = "onnx"
    settings.RERANK_GOLDEN = []
    runtime.reset().load_now()
