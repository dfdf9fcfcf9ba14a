import json
import logging
from typing import Any

import pytest
from django.test import Client

from memory.security import hmac_user
from project.logs import request_id
from tests.factories import API, api_client, index, make_service, person_client


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.name == "project.access"]


def test_acceptable_request_id_comes_back() -> None:
    assert Client(headers={"X-Request-ID": "trace-1.a_B"}).get("/healthz")["X-Request-ID"] == "trace-1.a_B"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ä", "a\nb", "<script>", "a;b"])
def test_other_request_ids_are_replaced(given: str) -> None:
    made = Client(headers={"X-Request-ID": given}).get("/healthz")["X-Request-ID"]
    assert made != given and len(made) == 32


def test_errors_carry_a_request_id_too() -> None:
    assert Client().get("/nothing")["X-Request-ID"]


def test_request_id_is_forgotten_after_the_request() -> None:
    Client().get("/healthz")
    assert request_id.get() is None


@pytest.mark.django_db
def test_access_log_shows_tenant_by_eight_hex_and_the_route_without_its_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = api_client(make_service(), user="a-telling-name")
    index(client, doc_id="a-telling-document")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        client.delete(f"{API}/documents/a-telling-document?not=telling")
    (line,) = access_lines(caplog)
    assert line["tenant"] == hmac_user("service:acme:a-telling-name")[:8]
    assert (line["method"], line["status"]) == ("DELETE", 200)
    assert line["route"] == "api/v1/documents/<anytext:doc_id>"
    assert line["duration_ms"] > 0
    assert "telling" not in json.dumps(line, default=str).replace("test_middleware", "")


def test_probes_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Client().get("/healthz")
    assert access_lines(caplog) == []


def test_invented_methods_are_405_and_become_no_label(caplog: pytest.LogCaptureFixture) -> None:
    response = Client().generic("FROBNICATE", "/healthz")
    assert response.status_code == 405
    assert "GET" in response["Allow"].split(", ")
    assert response["X-Request-ID"]
    assert "FROBNICATE" not in caplog.text


@pytest.mark.django_db
def test_anonymous_request_has_no_tenant(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        api_client().get(f"{API}/memories")
        person_client().get(f"{API}/memories")
    anonymous, known = access_lines(caplog)
    assert anonymous["tenant"] is None and len(known["tenant"]) == 8
