"""Identifies the caller of an API request and binds the tenant for as long as the request lasts.

DRF authenticates inside the view, too late for a tenant that views, throttles and logs all need; so it happens here,
once, and `memory.access.authentication` hands the outcome to DRF. A failed identification is handed over too, with no
tenant bound: DRF raises it where its handler can answer, and views that ask for nobody (schema, docs) do not care.
"""

from collections.abc import Callable

from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse

from memory.access.authentication import identify
from memory.access.identity import Identity, IdentityError
from memory.rls import bind_tenant
from memory.security import hmac_user

API_PREFIX = "/api/"


class TenantMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(API_PREFIX):
            return self.get_response(request)
        try:
            identity = identify(request)
        except (IdentityError, DatabaseError) as failure:
            request.memory_identity = failure  # type: ignore[attr-defined]
            return self.get_response(request)
        request.memory_identity = identity  # type: ignore[attr-defined]
        return self._as_tenant(request, identity)

    def _as_tenant(self, request: HttpRequest, identity: Identity | None) -> HttpResponse:
        if identity is None:
            return self.get_response(request)
        request.tenant_label = hmac_user(identity.user_id)[:8]  # type: ignore[attr-defined]
        with bind_tenant(identity.user_id):
            return self.get_response(request)
