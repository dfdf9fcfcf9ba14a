"""What a model behind HTTP may do to its client, done by a real server."""

import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from inference import remote
from inference.remote import ModelServer
from tests.model_server import Reply, model_server


def ask(replies: list[Reply], timeout: float = 10, attempts: int = 3, **options: Any) -> tuple[Any, int, list[float]]:
    """The answer, the number of requests, and the pauses between them."""
    pauses: list[float] = []
    left = iter(replies)
    options = {"sleep": pauses.append, "jitter": lambda low, high: high, **options}
    with model_server(lambda body: next(left)) as server:
        client = ModelServer(server.url + "/embed", attempts=attempts, **options)
        try:
            return client.post({"inputs": ["a"]}, timeout), len(server.requests), pauses
        finally:
            client.close()


@pytest.mark.parametrize(
    "trouble",
    [Reply(status=500), Reply(status=503), Reply(status=429), Reply(b"[1", promised=1000)],
    ids=["500", "503", "429", "half an answer"],
)
def test_what_may_pass_is_tried_again(trouble: Reply) -> None:
    assert ask([trouble, trouble, Reply([1])]) == ([1], 3, [0.1, 0.2])


def test_the_last_attempt_tells_what_was_wrong() -> None:
    with pytest.raises(httpx2.HTTPStatusError):
        ask([Reply(status=500)] * 3)


def test_what_will_not_pass_is_asked_once() -> None:
    with pytest.raises(httpx2.HTTPStatusError):
        ask([Reply(status=400)])


def test_a_server_that_says_when_is_asked_then() -> None:
    assert ask([Reply(status=429, headers={"Retry-After": "2"}), Reply([1])])[2] == [2.1]


def test_a_pause_longer_than_the_time_left_is_not_made() -> None:
    with pytest.raises(httpx2.HTTPStatusError):
        ask([Reply(status=429, headers={"Retry-After": "60"})], timeout=5)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", b'{"a": '])
def test_garbage_is_no_answer(body: bytes) -> None:
    with pytest.raises(ValueError):
        ask([Reply(body)])


@pytest.mark.parametrize("reply", [Reply(hangs=True), Reply([1], dribbles=True, promised=10**6)])
def test_a_server_that_hangs_or_dribbles_is_left_at_the_deadline(reply: Reply) -> None:
    with pytest.raises((TimeoutError, httpx2.TimeoutException)):
        ask([reply], timeout=0.3)


def test_nobody_there() -> None:
    client = ModelServer("http://127.0.0.1:1/embed", attempts=2, sleep=lambda seconds: None)
    with pytest.raises(httpx2.TransportError):
        client.post({}, 5)
    client.close()


def test_no_time_left_asks_nothing() -> None:
    with model_server(lambda body: Reply([])) as server:
        client = ModelServer(server.url)
        with pytest.raises(TimeoutError):
            client.post({}, 0)
        client.close()
        assert server.requests == []


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="too large"):
        ask([Reply([1] * 100)])


def test_the_token_is_sent_and_shown_nowhere() -> None:
    with model_server(lambda body: Reply([])) as server:
        client = ModelServer(server.url, token="hush")  # noqa: S106
        client.post({}, 5)
        client.close()
        assert server.headers[0]["Authorization"] == "Bearer hush"
        assert "hush" not in repr(client)


@pytest.fixture(autouse=True)
def _no_test_hangs() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 60
