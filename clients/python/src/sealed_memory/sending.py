"""What both clients do with steps, whatever carries the bytes: repeat attempts, read answers, follow exports.

Nothing here waits or connects. It yields an Attempt, and is sent the response or the failure; or a Pause.
"""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NoReturn, TypeAlias, TypeVar

import httpx2

from sealed_memory.calls import Call, Pause, Steps
from sealed_memory.errors import ExportBrokenOff, NoAnswer, SealedMemoryError, ServerError, error_from
from sealed_memory.retries import Retries, idempotency_key

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """A request as it goes out, once."""

    call: Call[Any]
    headers: dict[bytes, bytes] = field(repr=False)


Work: TypeAlias = Generator[Attempt | Pause, Any, T]


class Sender:
    """Where the service is, who asks, and how often: the part of a client that is no transport."""

    def __init__(self, base_url: str | None, token: str | None, user: str | None, retries: Retries) -> None:
        self.base_url, self.token, self.retries = _address(base_url), token, retries
        self.headers = _headers(token, user)

    def work(self, steps: Steps[T]) -> Work[T]:
        """Attempts and pauses for steps, each of whose calls is repeated where that can help."""
        answer, error = None, None
        while True:
            try:
                step = steps.throw(error) if error else steps.send(answer)
            except StopIteration as ended:
                result: T = ended.value
                return result
            answer, error = None, None
            if isinstance(step, Pause):
                yield step
                continue
            try:
                response = yield from self.attempts(step)
                answer = step.read(_body(response))
            except SealedMemoryError as failure:
                error = failure

    def attempts(self, call: Call[Any]) -> Work[httpx2.Response]:
        """The response to a call, after as many attempts as it takes. Raises ServerError or NoAnswer."""
        headers = {**self.headers, **call.headers, **idempotency_key(call.method, call.key)}
        for attempt in count(1):
            outcome: httpx2.Response | httpx2.TransportError = yield Attempt(call, headers)
            error = _error(outcome)
            if error is None:
                assert isinstance(outcome, httpx2.Response)  # noqa: S101
                return outcome
            wait = self.retries.wait(attempt, error if isinstance(error, ServerError) else None)
            if wait is None or isinstance(outcome, httpx2.LocalProtocolError):  # which never left this machine
                raise error
            yield Pause(wait)
        raise AssertionError("unreachable")

    def request(self, http: "httpx2.Client | httpx2.AsyncClient", attempt: Attempt) -> httpx2.Request:
        """An attempt for httpx."""
        call = attempt.call
        address = self.base_url + call.path
        return http.build_request(
            call.method, address, headers=attempt.headers, json=call.body, params=call.parameters or None
        )


class Lines:
    """The lines of an export out of the bytes in which it arrives. A line ends at a line feed, and at nothing else."""

    def __init__(self) -> None:
        self._rest = b""
        self._last = b""

    def taken(self, received: bytes) -> Iterator[bytes]:
        """The lines that these bytes complete, each with its line feed."""
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            self._last = line
            yield line + b"\n"

    def fail(self, failure: Exception) -> NoReturn:
        """Raise ExportBrokenOff because of a failure."""
        raise ExportBrokenOff(ExportBrokenOff.__doc__) from failure

    def finish(self) -> None:
        """Raise ExportBrokenOff unless the last line said that the export is complete."""
        if self._rest or not self._last.startswith(b'{"export":{"complete":true'):
            raise ExportBrokenOff(ExportBrokenOff.__doc__)


def _error(outcome: httpx2.Response | httpx2.TransportError) -> SealedMemoryError | None:
    if isinstance(outcome, httpx2.Response):
        return None if outcome.is_success else error_from(outcome.status_code, _json(outcome), outcome.headers)
    # The name only: a message may hold the address, and with it a doc_id.
    failure = NoAnswer(f"No answer from the service: {type(outcome).__name__}.")
    failure.__cause__ = outcome
    return failure


def _body(response: httpx2.Response) -> Any:
    """The JSON of a success. Raises ServerError for the page of something in between."""
    if (body := _json(response)) is None:
        raise error_from(response.status_code, None, response.headers)
    return body


def _json(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _address(base_url: str | None) -> str:
    found = base_url or os.environ.get("SEALED_MEMORY_URL")
    if not found:
        raise ValueError("Give base_url, or set SEALED_MEMORY_URL.")
    return found.rstrip("/")


def _headers(token: str | None, user: str | None) -> dict[bytes, bytes]:
    secret = token or os.environ.get("SEALED_MEMORY_TOKEN")
    if not secret:
        raise ValueError("Give token, or set SEALED_MEMORY_TOKEN.")
    if any(character < " " or character == "\x7f" for character in f"{secret}{user or ''}"):
        raise ValueError("A token or a user may hold no control characters.")
    named = {} if user is None else {b"X-Memory-User": user.encode()}
    return {b"Authorization": f"Bearer {secret}".encode(), b"Accept": b"application/json", **named}
