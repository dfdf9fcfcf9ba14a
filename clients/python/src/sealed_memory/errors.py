"""What the service refuses, as exceptions. Their messages are the service's sentences, which repeat no content."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any


@dataclass(frozen=True)
class FieldError:
    """A field of the request, such as `documents[3].text`, and what is wrong with it."""

    field: str
    message: str


class SealedMemoryError(Exception):
    """Base of this client's errors."""


class NoAnswer(SealedMemoryError):
    """No answer came: the connection failed or timed out, also when it was tried again."""


class ExportBrokenOff(SealedMemoryError):
    """The export ended before its last line: what was read of it is not all. Begin again."""


class StillRunning(SealedMemoryError):
    """The operation had not ended when the time to wait for it was over. It goes on."""


class ServerError(SealedMemoryError):
    """An answer that is an error. `errors` names the fields at fault, `request_id` finds the service's log line."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        *,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        fields = "".join(f" {each.field}: {each.message}" for each in errors)
        super().__init__(f"{status}: {detail}{fields}")
        self.status, self.detail, self.errors = status, detail, errors
        self.request_id, self.retry_after = request_id, retry_after


class InvalidRequest(ServerError):
    """400 or 422: the request cannot be carried out as it is."""


class Unauthenticated(ServerError):
    """401: the token is unknown, expired or revoked."""


class Forbidden(ServerError):
    """403: this token may not do that."""


class NotFound(ServerError):
    """404: nothing of this user's under that address."""


class Conflict(ServerError):
    """409: it changed meanwhile, or the same request is still under way."""


class TooLarge(ServerError):
    """413: more than the service takes at once."""


class TooManyRequests(ServerError):
    """429: wait for `retry_after` seconds."""


class Unavailable(ServerError):
    """503: a part of the service is away; try again after `retry_after` seconds."""


BY_STATUS: Mapping[int, type[ServerError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: InvalidRequest,
    429: TooManyRequests,
    503: Unavailable,
}


def error_from(status: int, body: Any, headers: Mapping[str, str]) -> ServerError:
    """The exception for an answer; `body` is problem details (RFC 9457) or, from something in between, anything."""
    problem = body if isinstance(body, dict) else {}
    found = problem.get("errors")
    errors = tuple(
        FieldError(str(each.get("field", "")), str(each.get("message", "")))
        for each in (found if isinstance(found, list) else ())
        if isinstance(each, dict)
    )
    return BY_STATUS.get(status, ServerError)(
        status,
        str(problem.get("detail") or "The service answered with an error."),
        errors,
        request_id=headers.get("X-Request-ID"),
        retry_after=seconds(headers.get("Retry-After")),
    )


def seconds(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which holds a number of them or a date; None without one."""
    if header is None:
        return None
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
