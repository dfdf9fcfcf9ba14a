"""What every test of the keys starts with."""

import pytest

from keys import nonces


@pytest.fixture(autouse=True)
def _nothing_prepaid() -> None:
    """What an earlier test prepaid was emptied with its database."""
    nonces.forget()
