"""What is sent again, and with which key."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from sealed_memory import (
    AsyncClient,
    Client,
    Document,
    InvalidRequest,
    NoAnswer,
    NotFound,
    ServerError,
    TooManyRequests,
    Unavailable,
)
from sealed_memory.retries import Retries

INDEXED = {"documents": [{"doc_id": "a", "chunk_ids": ["1"], "replaced": 0, "of_a_newer_service": True}]}
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
        assert "smem_secret" not in repr(found) and "smem_secret" not in repr(vars(found)["_retries"])


def test_no_text_in_a_repr() -> None:
    assert "secret" not in repr(Document(text="secret", metadata={"k": "secret"}, title="secret"))
