"""What is sent again, and with which key."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest
from sealed_memory import (
    AsyncClient,
    Client,
    Document,
    ExportBrokenOff,
    InvalidRequest,
    NoAnswer,
    NotFound,
    Operation,
    Progress,
    Retries,
    ServerError,
    StillRunning,
    TooLarge,
    TooManyRequests,
    Unavailable,
    calls,
)
from sealed_memory.errors import seconds
from sealed_memory.sending import Lines

INDEXED = {"documents": [{"doc_id": "a", "chunk_ids": ["1"], "replaced": 0, "of_a_newer_service": True}]}
RUNNING = Operation(id="o", status="running", progress=Progress(), created_at=datetime(2026, 1, 1, tzinfo=UTC))
AT_ONCE = Retries(first_wait=0, longest_wait=5)


class Service:
    """Answers each request by the next of `answers`, the last again and again; keeps what it was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.requests = list(answers), []  # type: ignore[var-annotated]

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, body, *headers = answer
        return httpx2.Response(status, json=body, headers=headers[0] if headers else {})


def client(service: Service, retries: Retries = AT_ONCE) -> Client:
    http = httpx2.Client(transport=httpx2.MockTransport(service))
    return Client("http://memory.test/", token="smem_t", retries=retries, http=http)


def async_client(service: Service, retries: Retries = AT_ONCE) -> AsyncClient:
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(service))
    return AsyncClient("http://memory.test", token="smem_t", retries=retries, http=http)


def both(service: Service, verb: Callable[[Any], Any], retries: Retries = AT_ONCE) -> list[Any]:
    """The result of a verb, or what it raised, with each client."""

    async def ask() -> Any:
        return await verb(async_client(service, retries))

    return [_outcome(lambda: verb(client(service, retries))), _outcome(lambda: asyncio.run(ask()))]


def _outcome(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except Exception as error:
        return error


@pytest.mark.parametrize(
    "passing",
    [
        (503, {}),
        (502, {}),
        (504, {}),
        (429, {}, {"Retry-After": "0"}),
        httpx2.ConnectError("x"),
        httpx2.ReadTimeout("x"),
    ],
)
def test_what_passes_is_tried_again_under_the_same_key(passing: Any) -> None:
    service = Service(passing, passing, (200, INDEXED))
    stored = client(service).index("a text")
    assert stored[0].doc_id == "a"
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert len(service.requests) == 3 and len(keys) == 1
    client(service).index("a text")
    assert service.requests[-1].headers["Idempotency-Key"] not in keys


def test_reading_needs_no_key() -> None:
    service = Service((200, {"memories": [], "next_cursor": None}))
    assert list(client(service).memories()) == []
    assert "Idempotency-Key" not in service.requests[0].headers


def test_what_does_not_pass_is_not_tried_again() -> None:
    problem = {"detail": "No.", "errors": [{"field": "documents[0].text", "message": "This must not be empty."}]}
    for status, kind in ((400, InvalidRequest), (404, NotFound), (500, ServerError), (422, InvalidRequest)):
        service = Service((status, problem, {"X-Request-ID": "r-1"}))
        for error in both(service, lambda each: each.index("a")):
            assert type(error) is kind
            assert (error.status, error.request_id, error.errors[0].field) == (status, "r-1", "documents[0].text")
        assert len(service.requests) == 2


def test_giving_up_after_the_attempts() -> None:
    for answer, kind in (((503, {}), Unavailable), (httpx2.ConnectError("secret"), NoAnswer)):
        service = Service(answer)
        for error in both(service, lambda each: each.delete("1")):
            assert type(error) is kind and "secret" not in str(error)
        assert len(service.requests) == 2 * AT_ONCE.attempts


def test_a_wait_that_is_too_long_is_not_waited_for() -> None:
    service = Service((429, {"detail": "Too many."}, {"Retry-After": "3600"}))
    for error in both(service, lambda each: each.get("1")):
        assert isinstance(error, TooManyRequests) and error.retry_after == 3600
    assert len(service.requests) == 2


@pytest.mark.parametrize("name", ["a\nX-Memory-User: b", "a\r\nb", "\0", "a\x7f"])
def test_no_header_can_be_slipped_in(name: str) -> None:
    service = Service((200, INDEXED))
    with pytest.raises(ValueError, match="control"):
        client(service).for_user(name)
    with pytest.raises(ValueError, match="control"):
        Client("http://memory.test", token=name)
    assert service.requests == []


def test_what_cannot_be_sent_is_not_tried_again() -> None:
    service = Service(httpx2.LocalProtocolError("illegal header"))
    for error in both(service, lambda each: each.index("a", idempotency_key="b\nc")):
        assert isinstance(error, NoAnswer)
    assert len(service.requests) == 2


def test_waits_grow_up_to_a_limit() -> None:
    retries = Retries(attempts=10, first_wait=1, longest_wait=4)
    waits = [retries.wait(attempt, None) for attempt in range(1, 11)]
    assert waits[-1] is None
    assert all(
        low <= wait <= high
        for wait, (low, high) in zip(waits, [(0.5, 1), (1, 2), (2, 4), (2, 4)], strict=False)
        if wait
    )


def test_answers_of_something_in_between_are_errors_too() -> None:
    http = httpx2.Client(transport=httpx2.MockTransport(lambda request: httpx2.Response(200, text="<html>")))
    with pytest.raises(ServerError):
        Client("http://memory.test", token="t", http=http).get("1")


def test_documents_and_users_are_sent_as_they_are() -> None:
    service = Service((200, INDEXED))
    named = client(service).for_user("Zoë")
    named.index(documents=[Document(chunks=["a", "b"], doc_id="x/y", metadata={"k": None})])
    request = service.requests[0]
    assert json.loads(request.content) == {
        "documents": [{"chunks": ["a", "b"], "doc_id": "x/y", "metadata": {"k": None}}]
    }
    assert dict(request.headers.raw)[b"X-Memory-User"] == "Zoë".encode()
    service.answers = [(200, {"deleted": 1})]
    client(service).delete_document("x/y z")
    assert service.requests[-1].url.raw_path == b"/api/v1/documents/x%2Fy%20z"


def test_where_and_who_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEALED_MEMORY_URL", "SEALED_MEMORY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="SEALED_MEMORY_URL"):
        Client(token="t")
    with pytest.raises(ValueError, match="SEALED_MEMORY_TOKEN"):
        Client("http://memory.test")
    monkeypatch.setenv("SEALED_MEMORY_URL", "http://memory.test")
    monkeypatch.setenv("SEALED_MEMORY_TOKEN", "smem_secret")
    with Client() as found:
        assert "smem_secret" not in repr(found) and "smem_secret" not in repr(vars(found)["_sender"])


def test_no_text_in_a_repr() -> None:
    assert "secret" not in repr(Document(text="secret", metadata={"k": "secret"}, title="secret"))


def test_steps_catch_what_a_call_raises() -> None:
    def steps() -> Any:
        try:
            yield from calls.get("1")
        except NotFound:
            return (yield from calls.delete("2"))

    for outcome in both(
        Service((404, {}), (200, {"deleted": 1}), (404, {}), (200, {"deleted": 1})), lambda c: c.run(steps())
    ):
        assert outcome == 1


def test_a_date_says_when_to_come_back() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=4), usegmt=True)
    assert 2 <= (seconds(soon) or 0) <= 4
    assert seconds("Thu, 01 Jan 1970 00:00:00 GMT") == 0
    assert [seconds(each) for each in (None, "soon", "7", "٧")] == [None, None, 7, None]


def test_a_key_of_ones_own_is_sent() -> None:
    service = Service((200, INDEXED))
    client(service).index("a text", idempotency_key="job-42")
    assert service.requests[0].headers["Idempotency-Key"] == "job-42"


def test_what_is_not_named_is_not_sent_and_none_takes_away() -> None:
    service = Service((200, {"doc_id": "a", "chunk_ids": []}))
    client(service).update_document("a", title=None, occurred_at=datetime(2026, 5, 2, tzinfo=UTC))
    assert json.loads(service.requests[0].content) == {"title": None, "occurred_at": "2026-05-02T00:00:00+00:00"}


def test_waiting_looks_again_until_the_end_or_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "LOOK_AGAIN_SECONDS", 0.0)
    running = {"id": "o", "status": "running", "progress": {}, "created_at": "2026-01-01T00:00:00Z"}
    done = {**running, "status": "succeeded", "finished_at": "2026-01-01T00:00:01Z", "result": INDEXED}
    problem = {"status": 413, "detail": "No.", "errors": [{"field": "text", "message": "This is too large."}]}
    failed = {**done, "status": "failed", "result": None, "error": problem}
    for stored in both(Service((200, running), (200, done), (200, running), (200, done)), lambda c: c.wait(RUNNING)):
        assert stored[0].doc_id == "a"
    for error in both(Service((200, failed)), lambda c: c.wait(RUNNING)):
        assert isinstance(error, TooLarge) and error.errors[0].field == "text"
    for error in both(Service((200, running)), lambda c: c.wait(RUNNING, timeout=0.01)):
        assert isinstance(error, StillRunning)


# --- Exports ----------------------------------------------------------------------------------------------------------

FIRST, LAST = b'{"export":{"version":1}}\n', b'{"export":{"complete":true,"documents":1}}\n'
LINE = '{"doc_id":"a","stored":[{"text":"one\u2028two\x85three"}]}\n'.encode()


def exported(content: Any) -> list[Any]:
    """What each client makes of the body of an export: its lines, or what it raised."""

    async def collected() -> list[bytes]:
        async with AsyncClient("http://m.test", token="t", http=httpx2.AsyncClient(transport=transport)) as memory:
            return [line async for line in memory.export()]

    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, content=content))
    of_thread = Client("http://m.test", token="t", http=httpx2.Client(transport=transport))
    return [_outcome(lambda: list(of_thread.export())), _outcome(lambda: asyncio.run(collected()))]


def test_a_line_of_an_export_ends_at_a_line_feed_alone() -> None:
    for lines in exported(FIRST + LINE + LAST):
        assert lines == [FIRST, LINE, LAST]


@pytest.mark.parametrize("content", [b"", FIRST, FIRST + LINE, FIRST + LAST[:-1], FIRST + LAST + LINE[:9]])
def test_an_export_without_its_last_line_broke_off(content: bytes) -> None:
    for error in exported(content):
        assert isinstance(error, ExportBrokenOff)


def test_lines_come_out_of_any_pieces() -> None:
    whole, lines = FIRST + LINE + LAST, Lines()
    taken = [line for place in range(len(whole)) for line in lines.taken(whole[place : place + 1])]
    lines.finish()
    assert taken == [FIRST, LINE, LAST]


def test_an_export_is_refused_before_it_begins() -> None:
    service = Service((503, {"detail": "Too many exports."}, {"Retry-After": "60"}))
    with pytest.raises(Unavailable, match="Too many exports"):
        list(client(service).export(embeddings=True))
    assert service.requests[0].url.query == b"embeddings=true"
    assert "Idempotency-Key" not in service.requests[0].headers
