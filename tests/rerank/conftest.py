"""Every test starts with an unloaded reranker and the switch on, and leaves nothing running."""

import pytest


@pytest.fixture(autouse=True)
def _fresh(fresh_reranker: None) -> None: ...
