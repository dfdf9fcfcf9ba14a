from typing import Any

from django.core.checks import run_checks


def identifiers() -> set[str]:
    return {str(message.id) for message in run_checks()}


def test_rate_that_cannot_be_read_is_an_error(settings: Any) -> None:
    assert "memory.E011" not in identifiers()
    settings.MEMORY_THROTTLE_QUERY = "often"
    assert "memory.E011" in identifiers()
    settings.MEMORY_THROTTLE_QUERY = ""
    assert "memory.E011" not in identifiers()
