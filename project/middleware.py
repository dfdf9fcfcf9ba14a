"""The outermost middleware: a request's id, its span, and one access log line when it is answered."""

import logging
import re
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.http import HttpRequest, HttpResponse

from memory import tracing
from project.errors import problem
from project.logs import request_id

logger = logging.getLogger("project.access")

REQUEST_ID_HEADER = "X-Request-ID"
ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ALLOWED = {"Allow": ", ".join(sorted(METHODS))}
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestMiddleware:
    """Takes or makes the request id, binds it for the logs and the trace, sends it back, and logs the answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        identifier = _request_id(request)
        bound = request_id.set(identifier)
        started = time.monotonic()
        try:
            with _span(request) as span:
                # Invented methods would each become a label of the request metrics.
                response = self.get_response(request) if request.method in METHODS else problem(405, headers=ALLOWED)
                response[REQUEST_ID_HEADER] = identifier
                _describe(span, request, response, identifier)
                _log(request, response, time.monotonic() - started)
            return response
        finally:
            request_id.reset(bound)


def _request_id(request: HttpRequest) -> str:
    """The caller's id when it is short and plain, else a fresh one: it goes into logs and headers."""
    given = request.META.get("HTTP_X_REQUEST_ID", "")
    return given if ACCEPTABLE_ID.fullmatch(given) else uuid.uuid4().hex


def _span(request: HttpRequest) -> AbstractContextManager[Any]:
    """The request's span; probes have none, as they have no line in the log."""
    return nullcontext() if request.path_info in PROBES else tracing.request_span(_method(request), request.headers)


def _describe(span: Any, request: HttpRequest, response: HttpResponse, identifier: str) -> None:
    route = _route(request)
    tracing.describe(
        span,
        f"{_method(request)} {route}" if route else "",
        **{
            "http.request.method": _method(request),
            "http.route": route,
            "http.response.status_code": response.status_code,
            "request_id": identifier,
        },
    )


def _method(request: HttpRequest) -> str:
    return request.method if request.method in METHODS else "other"


def _route(request: HttpRequest) -> str | None:
    return request.resolver_match.route if request.resolver_match else None


def _log(request: HttpRequest, response: HttpResponse, seconds: float) -> None:
    level = logging.DEBUG if request.path_info in PROBES else logging.INFO
    logger.log(
        level,
        "request",
        extra={
            "tenant": getattr(request, "tenant_label", None),
            "method": _method(request),
            "route": _route(request),
            "status": response.status_code,
            "duration_ms": round(seconds * 1000, 2),
        },
    )
