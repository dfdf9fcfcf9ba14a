"""Errors as a caller sees them: `application/problem+json` (RFC 9457), and the only place where errors become HTTP.

    {"type": "urn:sealed-memory:invalid-request", "title": "Bad Request", "status": 400,
     "detail": "…", "errors": [{"field": "documents[3].chunks[0].embedding", "message": "…"}]}

Nothing of a request's content is repeated: a detail is a sentence of ours, a field is a name of ours.
"""

import logging
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from django.views import defaults
from rest_framework import exceptions as drf

from keys.exceptions import NonceBudgetSpent
from memory.access import identity
from memory.exceptions import (
    ChangedMeanwhile,
    ChunkNotFound,
    DocumentTooLarge,
    EmbeddingModelUnavailable,
    IdempotencyKeyReused,
    IntegrityFailure,
    InvalidDocument,
    NoEmbedding,
    NotServed,
    OperationNotFound,
    QueueFull,
    RequestInFlight,
    TooManyExports,
    TooManyOperations,
)
from project.content_security import ADMIN_PREFIX

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5
DATABASE_AWAY = (OperationalError, InterfaceError)

FieldError = tuple[str, str]
"""A field's name (`documents[0].text`) and what is wrong with it."""

SLUGS = {
    400: "invalid-request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    406: "not-acceptable",
    409: "conflict",
    413: "too-large",
    415: "unsupported-media-type",
    422: "not-processable",
    429: "too-many-requests",
    500: "internal-error",
    501: "not-served",
    503: "unavailable",
}

DETAILS = {
    400: "The request is malformed.",
    401: "Send a valid access token: `Authorization: Bearer smem_…`.",
    403: "This credential may not do that.",
    404: "There is nothing of yours under this address.",
    405: "This address does not answer that method; see the Allow header.",
    406: "Answers are application/json.",
    409: "Others kept changing this meanwhile; try again.",
    413: "The request is larger than this service takes.",
    415: "Send application/json.",
    429: "Too many requests; see the Retry-After header.",
    500: "Something went wrong on our side; the log has it under the X-Request-ID of this answer.",
    503: "A part of this service is away; try again after the Retry-After header's seconds.",
}


AWAY = "The embedding model is away."
NO_EMBEDDING = {
    NoEmbedding.QUEUE_FULL: "Too much is waiting to be embedded; try again after the Retry-After header's seconds.",
    NoEmbedding.LOADING: "The embedding model is being loaded.",
}

INVALID = "The request is not valid; see errors."


def problem(
    status: int,
    detail: str | None = None,
    *,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
    slug: str | None = None,
) -> HttpResponse:
    """A problem+json answer. `detail` and `errors` go out as they are: never put a request's content into them."""
    body: dict[str, Any] = {
        "type": f"urn:sealed-memory:{slug or SLUGS.get(status, 'error')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or DETAILS.get(status, HTTPStatus(status).description),
    }
    if errors:
        body["errors"] = [{"field": field, "message": message} for field, message in errors]
    response = JsonResponse(body, status=status, content_type="application/problem+json", headers=headers)
    response["Cache-Control"] = "no-store"
    return response


# --- Inside a view: DRF's exception handler ---


def exception_handler(exc: Exception, context: dict[str, Any]) -> HttpResponse:
    """The answer to an exception of an API view. An unexpected one becomes a 500 without details and a log entry."""
    response = _identity_problem(exc) or _domain_problem(exc) or _framework_problem(exc)
    if response is not None:
        return response
    logger.error("unhandled exception", exc_info=exc)
    return problem(500)


def _identity_problem(exc: Exception) -> HttpResponse | None:
    field = [(exc.field, str(exc))] if isinstance(exc, identity.IdentityError) else []
    match exc:
        case identity.InvalidCredential():
            return _unauthenticated(str(exc))
        case identity.MissingScope():
            challenge = 'Bearer realm="memory", error="insufficient_scope"'  # RFC 6750
            return problem(403, str(exc), headers={"WWW-Authenticate": challenge})
        case identity.ActingForUsersDenied():
            return problem(403, str(exc), errors=field)
        case identity.UserHeaderMissing() | identity.InvalidUserHeader():
            return problem(400, str(exc), errors=field)
    return None


def _domain_problem(exc: Exception) -> HttpResponse | None:
    match exc:
        case ChunkNotFound() | OperationNotFound():
            return problem(404)
        case NotServed():
            return problem(501, str(exc))
        case TooManyOperations():
            return problem(429, str(exc), headers={"Retry-After": str(RETRY_SECONDS)})
        case QueueFull():
            return problem(503, str(exc), headers={"Retry-After": str(RETRY_SECONDS)})
        case IdempotencyKeyReused():
            return problem(422, str(exc), errors=[("Idempotency-Key", str(exc))])
        case RequestInFlight():
            return problem(409, str(exc), headers={"Retry-After": str(max(1, math.ceil(exc.seconds)))})
        case ChangedMeanwhile():
            return problem(409)
        case TooManyExports():
            return problem(503, "Too many exports are under way.", headers={"Retry-After": str(RETRY_SECONDS)})
        case InvalidDocument():
            status = 413 if isinstance(exc, DocumentTooLarge) else 400
            return problem(status, INVALID, errors=[(exc.field, exc.message)])
        case IntegrityFailure():
            logger.error("integrity failure", extra={"reason": type(exc).__name__})
            return problem(500, "The seal of this memory does not open.", slug="integrity-failure")
        case EmbeddingModelUnavailable():
            logger.error("embedding model unavailable", extra={"reason": exc.reason.value})
            return problem(503, NO_EMBEDDING.get(exc.reason, AWAY), headers={"Retry-After": str(RETRY_SECONDS)})
        case NonceBudgetSpent():
            # The message names the key's id and the command that mends it.
            logger.error("nothing can be sealed", extra={"reason": str(exc)})
            return problem(503, "Nothing can be stored just now.", headers={"Retry-After": str(RETRY_SECONDS)})
        case OperationalError() | InterfaceError():
            return database_away(exc)
    return None


def _framework_problem(exc: Exception) -> HttpResponse | None:
    match exc:
        case drf.ValidationError():
            return invalid(exc.detail)
        case drf.NotAuthenticated() | drf.AuthenticationFailed():
            return _unauthenticated()
        case drf.Throttled():
            return problem(429, headers={"Retry-After": str(max(1, math.ceil(getattr(exc, "wait", None) or 1)))})
        case drf.ParseError():
            return problem(400, str(exc.detail))
        case drf.APIException():
            return problem(exc.status_code)
        case Http404():
            return problem(404)
        case PermissionDenied():
            return problem(403)
        case RequestDataTooBig():
            return problem(413)
        case SuspiciousOperation():
            return problem(400)
    return None


def _unauthenticated(detail: str | None = None) -> HttpResponse:
    return problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="memory"'})


def database_away(exc: BaseException) -> HttpResponse:
    """503: the database does not answer. What it said may hold content, so only the kind of error is logged."""
    logger.error("database unavailable", extra={"reason": type(exc.__cause__ or exc).__name__})
    return problem(503, headers={"Retry-After": str(RETRY_SECONDS)})


def invalid(detail: Any) -> HttpResponse:
    """400 for a serializer's findings, or 413 when every one of them is about size."""
    leaves = list(_leaves(detail))
    status = 413 if leaves and all(code == "too_large" for _, _, code in leaves) else 400
    return problem(status, INVALID, errors=[leaf[:2] for leaf in leaves])


def _leaves(detail: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """(field, message, code) of every finding in DRF's nested dicts and lists."""
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            yield from _leaves(value, _join(path, key))
    elif isinstance(detail, drf.ErrorDetail):
        yield path or "(body)", str(detail), detail.code or ""
    elif isinstance(detail, Sequence) and not isinstance(detail, str):
        for index, value in enumerate(detail):
            yield from _leaves(value, path if isinstance(value, drf.ErrorDetail) else f"{path}[{index}]")


def _join(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    if key == "non_field_errors":
        return path
    return f"{path}.{key}" if path else key


# --- Outside a view: Django's handlers, which also answer what middleware raised ---


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """handler400."""
    if isinstance(exception, DisallowedHost):
        return _page_or_problem(request, 400, UNKNOWN_HOST)
    return problem(413 if isinstance(exception, RequestDataTooBig) else 400)


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """handler403."""
    if _is_admin(request) and exception is not None:
        return defaults.permission_denied(request, exception)
    return problem(403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """handler404."""
    if _is_admin(request) and exception is not None:
        return defaults.page_not_found(request, exception)
    return problem(404)


def server_error(request: HttpRequest) -> HttpResponse:
    """handler500; called while the exception is being handled."""
    exc = sys.exc_info()[1]
    if isinstance(exc, DATABASE_AWAY):
        return database_away(exc)
    return defaults.server_error(request) if _is_admin(request) else problem(500)


ORIGIN = (
    "The page that sent this form comes from another origin (scheme, host and port) than the one this service was"
    " asked under. Behind a proxy: have it pass the Host header on, set X-Forwarded-Proto and TRUSTED_PROXY_COUNT, or"
    " list the address that the browser shows in CSRF_TRUSTED_ORIGINS."
)
NO_CSRF_TOKEN = "The CSRF token is missing or wrong; go back, reload the page and try again."  # noqa: S105
UNKNOWN_HOST = "This service does not answer under that host name; ALLOWED_HOSTS lists those it does."


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """CSRF_FAILURE_VIEW, for pages; API views enforce CSRF in their authenticator. Says whether it is the origin."""
    of_origin = reason.startswith(("Origin checking failed", "Referer checking failed"))
    return _page_or_problem(request, 403, ORIGIN if of_origin else NO_CSRF_TOKEN)


def _page_or_problem(request: HttpRequest, status: int, detail: str) -> HttpResponse:
    """A person at the admin is shown a page; anybody else gets problem+json."""
    if not _is_admin(request):
        return problem(status, detail)
    context = {"title": HTTPStatus(status).phrase, "detail": detail}
    response = HttpResponse(render_to_string("project/refused.html", context), status=status)
    response["Cache-Control"] = "no-store"
    return response


def locked_out(request: HttpRequest, response: Any = None, credentials: Any = None) -> HttpResponse:
    """AXES_LOCKOUT_CALLABLE: too many failed logins."""
    seconds = str(60 * settings.ADMIN_LOCKOUT_MINUTES)
    answer = _page_or_problem(request, 429, "Too many failed logins; wait before the next one.")
    answer["Retry-After"] = seconds
    return answer


def _is_admin(request: HttpRequest) -> bool:
    return request.path_info.startswith(ADMIN_PREFIX)
