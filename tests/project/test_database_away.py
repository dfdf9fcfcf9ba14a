"""Postgres goes away and comes back, under a server that answers in threads of its own."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from database import embedded_postgres
from memory.search import retrieval
from tests.factories import API, make_token, make_user, vector

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cluster(cluster_dir: str, live_server: Any) -> Iterator[str]:
    yield cluster_dir
    embedded_postgres.ensure_running(cluster_dir, throwaway=True)


def call(url: str, secret: str | None = None, body: Any = None) -> tuple[int, Any, Any]:
    """(status, headers, parsed body)"""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data)  # noqa: S310
    request.add_header("Content-Type", "application/json")
    if secret:
        request.add_header("Authorization", f"Bearer {secret}")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            return response.status, response.headers, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def assert_unavailable(answer: tuple[int, Any, Any]) -> None:
    status, headers, body = answer
    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert headers["Content-Type"] == "application/problem+json"
    assert body["type"] == "urn:sealed-memory:unavailable"


def test_request_without_a_database_is_503_and_the_one_after_its_return_works(live_server: Any, cluster: str) -> None:
    secret = make_token(make_user())
    memories = f"{live_server.url}{API}/memories"
    assert call(memories, secret)[0] == 200
    embedded_postgres.stop(cluster)
    assert_unavailable(call(memories, secret))
    assert call(f"{live_server.url}/healthz")[0] == 200
    status, headers, body = call(f"{live_server.url}/readyz")
    assert status == 503
    assert body["parts"] == {"database": "failing", "pgvector": "failing", "keys": "ok", "embedding": "ok"}
    embedded_postgres.ensure_running(cluster, throwaway=True)
    assert call(memories, secret)[0] == 200
    assert call(f"{live_server.url}/readyz")[0] == 200


def test_database_stopped_during_a_request_is_503_and_the_next_one_works(
    live_server: Any, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = make_token(make_user())
    url = f"{live_server.url}{API}/memories/query"

    def stop_then_embed(query: str) -> list[float]:
        embedded_postgres.stop(cluster)
        return vector()

    with monkeypatch.context() as patched:
        patched.setattr(retrieval, "embed_query", stop_then_embed)
        assert_unavailable(call(url, secret, {"query": "anything"}))
    embedded_postgres.ensure_running(cluster, throwaway=True)
    assert call(url, secret, {"query": "anything", "embedding": vector()})[0] == 200
