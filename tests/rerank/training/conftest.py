"""A small body for every test of this folder, and one thread: so little work that threads only wait for each other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.rerank.training import small


@pytest.fixture(scope="session")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.write_body(tmp_path_factory.mktemp("body"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
