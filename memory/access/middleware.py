"""Identifies the caller of a request, and binds the user for as long as the request lasts.

DRF authenticates inside the view, too late for views, throttles and logs, which all need the tenant. So the caller is
identified here, once, and `memory.access.authentication` hands the outcome to DRF. After a failed identification no
tenant is bound: DRF raises the failure where its handler can answer, and views without authentication (schema, docs)
ignore it.

Under `/api/` the caller is identified before the view runs. Elsewhere this waits until a statement reaches tenant rows,
so that other pages cost nothing. Under ASGI, where an async view could not do it, it is done before every view.

Under NAMING_PREFIX a call names its user itself, in its body, address or ids: only the caller is identified here, and
nobody is bound before the view has read the name (`memory.access.authentication.bind_identity`).
"""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.db import Error as DatabaseError
from django.http import FileResponse, HttpRequest, HttpResponseBase
from rest_framework.exceptions import Throttled

from memory import metrics
from memory.access import rates
from memory.access.authentication import bind_identity, identify, identify_caller
from memory.access.client_address import client_address
from memory.access.identity import Caller, Identity, IdentityError, InvalidCredential
from memory.access.rates import Budget
from memory.security import hmac_user
from memory.tenancy.open_doors import FindUser, bind_tenant_found_by
from memory.tracing import span

API_PREFIX = "/api/"
NAMING_PREFIX = "/api/mem0/"


class TenantMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        find = partial(_find_user, request)
        if request.path_info.startswith(API_PREFIX) or isinstance(request, ASGIRequest):
            _identify(request)
        with bind_tenant_found_by(find):
            response = self.get_response(request)
        return _streamed_as(find, response)


def _identify(request: HttpRequest) -> Identity | Caller | Exception | None:
    names_user = request.path_info.startswith(NAMING_PREFIX)
    try:
        with span("authenticate"):
            found: Identity | Caller | Exception | None = identify_caller(request) if names_user else identify(request)
    except InvalidCredential as failure:
        found = _counted(request, failure)
    except (IdentityError, DatabaseError) as failure:
        found = failure
    request.memory_identity = found  # type: ignore[attr-defined]
    if isinstance(found, Identity):
        bind_identity(request, found)
    return found


def _counted(request: HttpRequest, failure: InvalidCredential) -> Exception:
    """The failure, counted; or Throttled after too many failures from one address. Valid credentials never count."""
    metrics.AUTHENTICATION_FAILURES.inc()
    try:
        address = hmac_user(f"address:{client_address(request)}")
        budget = Budget("failed", settings.MEMORY_THROTTLE_FAILED_AUTH, f"failed:{address}")
        wait = rates.seconds_to_wait(rates.count_call([budget]))
    except DatabaseError as away:
        return away
    return Throttled(wait) if wait else failure


def _find_user(request: HttpRequest) -> str | None:
    """The caller's user id; None without a credential, for a caller who could not be identified, or has named nobody
    yet."""
    found = request.memory_identity if hasattr(request, "memory_identity") else _identify(request)
    if isinstance(found, DatabaseError):
        raise found
    return found.user_id if isinstance(found, Identity) else None


def _streamed_as(find: FindUser, response: Any) -> HttpResponseBase:
    """Bind the user for each part of a streamed answer, which is made after the middleware has returned."""
    if response.streaming and not isinstance(response, FileResponse):
        parts = _parts_as_async if response.is_async else _parts_as
        response.streaming_content = parts(find, response.streaming_content)
    return response


def _parts_as(find: FindUser, content: Iterator[bytes]) -> Iterator[bytes]:
    end = object()
    while True:
        with bind_tenant_found_by(find):
            part: Any = next(content, end)
        if part is end:
            return
        yield part


async def _parts_as_async(find: FindUser, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    end = object()
    while True:
        with bind_tenant_found_by(find):
            part: Any = await anext(content, end)
        if part is end:
            return
        yield part
