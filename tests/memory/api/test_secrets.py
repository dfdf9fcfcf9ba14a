"""Planted secrets: what somebody stored, asked or signed in with shows up nowhere but in their own answers."""

import json
import logging
from io import StringIO
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from memory.documents.document import Chunk, Document
from project.logs import RequestFilter, SafeJsonFormatter
from tests.factories import API, api_client, index, make_service, vector

pytestmark = pytest.mark.django_db
TEXT, QUERY, META, USER = "planted-text", "planted-query", "planted-metadata", "planted-user"
PLANTED = (TEXT, QUERY, META, USER)


@pytest.fixture
def log() -> Any:
    """Everything logged meanwhile, at the lowest level, as the service writes it."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeJsonFormatter())
    handler.addFilter(RequestFilter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def secret() -> str:
    return make_service()


@pytest.fixture
def client(secret: str) -> Client:
    return api_client(secret, user=USER)


def exercise(client: Client) -> None:
    """Index, ask, list, read, delete."""
    (chunk_id,) = index(client, TEXT, doc_id="d", metadata={"k": META})["chunk_ids"]
    answer = client.post(
        f"{API}/memories/query", {"query": QUERY, "embedding": vector()}, content_type="application/json"
    )
    assert TEXT in answer.content.decode()
    assert client.get(f"{API}/memories").status_code == 200
    assert client.get(f"{API}/memories/{chunk_id}").status_code == 200
    assert client.delete(f"{API}/memories/{chunk_id}").status_code == 200


def test_logs_of_good_calls_hold_no_secret(client: Client, secret: str, log: StringIO) -> None:
    exercise(client)
    written = log.getvalue()
    assert "api/v1/memories/index" in written
    assert not [planted for planted in (*PLANTED, secret) if planted in written]


def test_logs_and_answers_of_bad_calls_hold_no_secret(
    client: Client, secret: str, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(texts: Any) -> Any:
        raise ValueError(f"cannot embed {list(texts)}")

    monkeypatch.setattr("memory.indexing.embed_passages", fail)
    monkeypatch.setattr("memory.search.retrieval.embed_query", fail)
    bodies: list[Any] = [
        {"text": TEXT},
        {"text": TEXT, TEXT: 1},
        {"text": TEXT, "metadata": META},
        {"text": [TEXT]},
        {"documents": [{"text": TEXT, "embedding": [TEXT]}]},
        {"query": QUERY},
        {"query": QUERY, "top_k": QUERY},
    ]
    answers = [
        client.post(f"{API}/memories/{verb}", body, content_type="application/json")
        for body in bodies
        for verb in ("index", "query")
    ]
    answers.append(client.generic("POST", f"{API}/memories/index", f'{{"text": "{TEXT}', "application/json"))
    answers.append(client.get(f"{API}/memories?cursor={QUERY}&limit={QUERY}"))
    answers.append(api_client(secret + "x", user=USER).get(f"{API}/memories"))
    shown = log.getvalue() + " ".join(answer.content.decode() for answer in answers)
    assert {answer.status_code for answer in answers} == {400, 401, 500}
    assert "builtins.ValueError" in log.getvalue()
    assert not [planted for planted in (*PLANTED, secret) if planted in shown]


def test_tables_hold_no_plain_secret(client: Client, secret: str) -> None:
    index(client, TEXT, metadata={"k": META})
    with connection.cursor() as cursor:
        cursor.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        assert "memory_chunks" in tables and "memory_accesstoken" in tables
        for table in tables:
            cursor.execute(f'SELECT count(*) FROM "{table}" t WHERE t::text LIKE ANY (%s)', [_patterns(secret)])
            assert cursor.fetchone() == (0,), table


def _patterns(secret: str) -> list[str]:
    plain = [*PLANTED, secret]
    return [f"%{text}%" for text in plain + [text.encode().hex() for text in plain]]


def test_reprs_hold_no_secret(client: Client, secret: str) -> None:
    from memory.access.tokens import AccessToken
    from memory.models import MemoryChunk
    from memory.rls import tenant_transaction

    index(client, TEXT, metadata={"k": META})
    document = Document(doc_id="d", source="", chunks=(Chunk(TEXT),), metadata={"k": META})
    with tenant_transaction(f"service:acme:{USER}"):
        row = MemoryChunk.objects.get()
        shown = [repr(row), str(row), json.dumps(vars(row), default=repr)]
    shown += [repr(document), repr(AccessToken.objects.get()), str(AccessToken.objects.get())]
    assert not [planted for planted in (*PLANTED, secret) if planted in " ".join(shown)]


def test_metrics_hold_no_secret(client: Client, secret: str, settings: Any) -> None:
    settings.METRICS_TOKEN = "scrape-me"
    exercise(client)
    client.get(f"{API}/documents/{TEXT}")
    page = Client(headers={"Authorization": "Bearer scrape-me"}).get("/metrics").content.decode()
    assert "memory_stage_seconds" in page
    assert not [planted for planted in (*PLANTED, secret) if planted in page]
