import io
import json
import logging
import sys
from typing import Any

import pytest
from django.test import Client, RequestFactory

from project.logs import PathFilter, RequestFilter, SafeJsonFormatter, request_id

SECRET = "the planted secret"


def line(
    message: str = "event", *, name: str = "memory.indexing", exc_info: Any = None, **extra: Any
) -> dict[str, Any]:
    """What the formatter makes of one record."""
    record = logging.getLogger(name).makeRecord(
        name, logging.ERROR, __file__, 1, message, (), exc_info, extra=extra or None
    )
    RequestFilter().filter(record)
    return json.loads(SafeJsonFormatter().format(record))


def test_line_is_one_json_object_with_the_request_id() -> None:
    token = request_id.set("id-1")
    try:
        made = line("sealed", stage="embed", count=3)
    finally:
        request_id.reset(token)
    assert made.pop("time")
    assert made == {
        "level": "ERROR",
        "logger": "memory.indexing",
        "message": "sealed",
        "stage": "embed",
        "count": 3,
        "request_id": "id-1",
    }


def test_exception_is_told_by_types_and_places_without_messages() -> None:
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            raise ValueError(f"could not parse {SECRET}") from cause
    except ValueError:
        made = line(exc_info=sys.exc_info())
    assert SECRET not in json.dumps(made)
    outer, inner = made["exc_info"]
    assert outer.startswith("builtins.ValueError: ") and inner.startswith("builtins.KeyError: ")
    assert "test_logs.py" in outer


def test_objects_and_statements_in_extras_are_left_out() -> None:
    made = line(request=RequestFactory().get("/?q=telling"), sql="SELECT 1", params=(SECRET,), thing=object())
    assert {"request", "sql", "params", "thing"}.isdisjoint(made)


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"Host": "telling.example.org"}, "/healthz?telling"),
        ({"Host": "localhost", "Origin": "https://telling.example.org"}, "/admin/login/telling/"),
    ],
)
def test_hosts_and_origins_that_are_refused_are_not_quoted(
    headers: dict[str, str], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [handler] = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    written = io.StringIO()
    monkeypatch.setattr(handler, "stream", written)
    status = Client(enforce_csrf_checks=True, headers=headers).post(path).status_code
    assert status in (400, 403)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert "telling" not in written.getvalue()
    assert [each["level"] for each in lines if each["logger"].startswith("django.security")] == ["WARNING"]


def test_djangos_request_log_loses_its_path_and_answered_errors() -> None:
    record = logging.LogRecord("django.request", logging.ERROR, "", 1, "Error: %s", ("/telling",), None)
    assert not PathFilter().filter(record)
    record.exc_info = (ValueError, ValueError(), None)
    assert PathFilter().filter(record)
    assert record.getMessage() == "unhandled exception"
