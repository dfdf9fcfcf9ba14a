"""A stand-in for the embedding model in changes."""

import pytest

from tests.memory.verbs.changes import Embedder


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> Embedder:
    """The model that changes embed with."""
    embedder = Embedder()
    monkeypatch.setattr("memory.verbs.patching.embed_passages", embedder)
    return embedder
