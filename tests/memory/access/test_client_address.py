from typing import Any

import pytest
from django.test import RequestFactory

from memory.access.client_address import client_address


def address(**meta: str) -> str | None:
    return client_address(RequestFactory().get("/", **meta))


def test_forwarded_header_is_not_believed_without_proxies(settings: Any) -> None:
    settings.TRUSTED_PROXY_COUNT = 0
    assert address(REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR="6.6.6.6") == "10.0.0.1"


@pytest.mark.parametrize(
    ("count", "forwarded", "expected"),
    [
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        (2, "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        (2, "203.0.113.9", "10.0.0.1"),
        (1, "nonsense", "10.0.0.1"),
        (1, "2001:db8::1", "2001:db8::1"),
    ],
)
def test_entry_of_the_outermost_trusted_proxy_counts(settings: Any, count: int, forwarded: str, expected: str) -> None:
    settings.TRUSTED_PROXY_COUNT = count
    assert address(REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded) == expected


def test_unix_socket_has_no_address() -> None:
    assert address(REMOTE_ADDR="") is None
