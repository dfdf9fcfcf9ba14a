"""The export over HTTP: a stream that is whole, or can be seen to have broken off."""

import http.client
import json
from contextlib import closing
from typing import Any
from urllib.parse import urlparse

import pytest
from django.db import connection

from memory.access.identity import person_user_id
from memory.importing import import_lines
from memory.verbs import exporting
from tests.factories import API, BOB, index, make_token, make_user, person_client, remember, vector

pytestmark = pytest.mark.django_db(transaction=True)
EXPORT = f"{API}/export"


def test_an_export_is_streamed_and_taken_back() -> None:
    client = person_client()
    stored = index(
        client, "hello", doc_id="d", metadata={"a": 1}, title="Team", occurred_at="2022-06-05T10:00:00+02:00"
    )
    answer = client.get(EXPORT, {"embeddings": "true"})
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/x-ndjson")
    assert answer["Cache-Control"] == "no-store" and answer.streaming
    lines = b"".join(answer.streaming_content).splitlines()
    assert not connection.in_atomic_block and exporting._running == 0
    (chunk,) = json.loads(lines[1])["stored"]
    assert (chunk["id"], chunk["title"], chunk["embedding"]) == (stored["chunk_ids"][0], "Team", vector())
    assert chunk["occurred_at"] == "2022-06-05T10:00:00+02:00"
    assert import_lines(user_id=BOB, lines=lines, batch_size=9).chunks == 1
    with closing(exporting.Export(user_id=BOB, embeddings=True)) as again:
        assert b"".join(again).splitlines() == lines


@pytest.mark.parametrize("accept", ["application/x-ndjson", "*/*", "application/json"])
def test_what_is_accepted_and_problems_are_problems(accept: str, settings: Any) -> None:
    client = person_client()
    answer = client.get(EXPORT, headers={"Accept": accept})
    assert (answer.status_code, len(list(answer.streaming_content))) == (200, 2)
    for parameters, field in (({"embeddings": "yes"}, "embeddings"), ({"n": "1"}, "n")):
        answer = client.get(EXPORT, parameters, headers={"Accept": accept})
        assert (answer.status_code, answer["Content-Type"]) == (400, "application/problem+json")
        assert answer.json()["errors"][0]["field"] == field
    settings.MEMORY_EXPORT_CONCURRENT = 0
    answer = client.get(EXPORT, headers={"Accept": accept})
    assert (answer.status_code, "Retry-After" in answer) == (503, True)


def test_a_client_that_closes_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    client = person_client()
    for number in range(5):
        index(client, f"text {number}", doc_id=f"d{number}")
    answer = client.get(EXPORT)
    assert len([next(answer.streaming_content), next(answer.streaming_content)]) == 2
    assert connection.in_atomic_block
    answer.close()
    assert not connection.in_atomic_block and exporting._running == 0


def test_one_that_breaks_off_is_no_whole_answer(live_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user()
    secret = make_token(user)
    real = exporting.part_line

    def part_line(part: Any) -> bytes:
        connection.connection.close()  # as an administrator of the database, or a restart, does
        return real(part)

    monkeypatch.setattr(exporting, "part_line", part_line)
    monkeypatch.setattr(exporting, "ROWS_PER_BATCH", 1)
    for number in range(3):
        remember(person_user_id(user.pk), f"d{number}", "text")
    address = urlparse(live_server.url)
    with closing(http.client.HTTPConnection(address.hostname or "", address.port)) as caller:
        caller.request("GET", EXPORT, headers={"Authorization": f"Bearer {secret}"})
        body = caller.getresponse().read()
    assert b'"complete"' not in body
    assert exporting._running == 0
