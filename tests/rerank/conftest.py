"""Every test starts with an unloaded reranker and the switch on, and leaves nothing running."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from rerank import flag, runtime
from rerank.weights.random_model import write_random_model


@pytest.fixture(autouse=True)
def _fresh_runtime(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[None]:
    settings.RERANK_ENABLED = True
    monkeypatch.setattr(flag, "switch", flag.Switch(read=lambda: True))
    runtime.reset()
    yield
    runtime.reset()


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of TinyBERT's shape with random weights."""
    return write_random_model(tmp_path_factory.mktemp("model"))
