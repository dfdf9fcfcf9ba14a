"""What every test of the keys starts with."""

from collections.abc import Iterator

import pytest

from keys import nonces


@pytest.fixture(autouse=True)
def _nothing_counted() -> Iterator[None]:
    """What an earlier test told was emptied with its database; a key that one used up is good for the next."""
    nonces.forget()
    yield
    nonces.forget()
