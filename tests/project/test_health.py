from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from keys.keyring import get_keyring
from memory.index import embedding_runtime
from project import health
from rerank import flag, runtime
from tests.rerank.factories import FakeBackend, serve_with


def test_healthz_answers_without_a_database() -> None:
    response = Client().get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.django_db
def test_readyz_tells_of_each_part() -> None:
    response = Client().get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "parts": {"database": "ok", "pgvector": "ok", "keys": "ok", "embedding": "ok"},
        "embedding": "idle",
        "rerank": "disabled",
    }


@pytest.mark.django_db
def test_readyz_stays_ready_while_the_reranker_is_down_and_says_so(settings: Any) -> None:
    settings.RERANK_ENABLED = True
    engine = serve_with(FakeBackend())
    assert Client().get("/readyz").json()["rerank"] == "ok"
    engine.breaker.trip("for the test")
    response = Client().get("/readyz")
    assert (response.status_code, response.json()["rerank"]) == (200, "breaker_open")
    runtime.reset()


@pytest.mark.django_db
def test_readyz_is_503_with_a_key_that_is_none(settings: Any) -> None:
    settings.MEMORY_ENCRYPTION_KEY = "short"
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json()["parts"]["keys"] == "failing"
    assert response["Retry-After"]
    assert "short" not in response.content.decode()


@pytest.mark.django_db
def test_readyz_is_503_when_the_role_reads_more_than_it_should(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from memory.tenancy import live_database

    monkeypatch.setattr(live_database, "live_problems", lambda cursor: ["The application role is a superuser."])
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json()["parts"] == {"database": "failing", "pgvector": "ok", "keys": "ok", "embedding": "ok"}
    assert "superuser" not in response.content.decode()
    (reason,) = [vars(record)["reason"] for record in caplog.records if record.getMessage() == "not ready"]
    assert reason == "The application role is a superuser."


@pytest.mark.django_db
def test_readyz_is_503_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("connection to somewhere refused")

    monkeypatch.setattr(connection, "cursor", away)
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json()["parts"] == {"database": "failing", "pgvector": "failing", "keys": "ok", "embedding": "ok"}
    assert "refused" not in response.content.decode()


@pytest.mark.django_db
def test_a_database_that_is_away_is_waited_for_once(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.RERANK_ENABLED = True
    asked: list[str] = []

    def away(*args: Any, **kwargs: Any) -> None:
        asked.append("asked")
        raise OperationalError("no connection within two seconds")

    monkeypatch.setattr(flag, "switch", flag.Switch(read=away))  # type: ignore[arg-type]
    monkeypatch.setattr(connection, "cursor", away)
    assert Client().get("/readyz").status_code == 503
    assert asked == ["asked"]


@pytest.mark.django_db
@pytest.mark.parametrize("state", ["loading", "unavailable", "dead", "breaker_open", "breaker_half_open"])
def test_readyz_is_503_while_the_embedding_model_cannot_be_used(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(embedding_runtime, "state", lambda: state)
    response = Client().get("/readyz")
    assert response.status_code == 503
    body = response.json()
    assert (body["parts"]["embedding"], body["embedding"]) == ("failing", state)
    assert body["parts"]["database"] == "ok"


@pytest.mark.django_db
def test_readyz_works_with_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = embedding_runtime.reset()
    Client().get("/readyz")
    assert runtime.status.value == "idle" and runtime.engine is None


@pytest.mark.django_db
def test_readyz_is_503_without_pgvector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "EXTENSION", "no_such_extension")
    assert Client().get("/readyz").json()["parts"]["pgvector"] == "failing"


def test_probes_take_only_safe_methods() -> None:
    assert Client().post("/healthz").status_code == 405


@pytest.fixture(autouse=True)
def _fresh_keys() -> Any:
    yield
    get_keyring.cache_clear()
