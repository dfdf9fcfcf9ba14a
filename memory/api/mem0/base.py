"""The base of mem0's views: whose memory a call is about is read from the call, before anything is done."""

from typing import Any

from rest_framework.request import Request

from memory.access.authentication import bind_identity
from memory.access.identity import USER_HEADER, Caller, Identity
from memory.api.base_view import MemoryAPIView
from memory.api.mem0.filters import ANYONE, ONE_USER, USER
from memory.api.schema import UserlessSchema
from memory.exceptions import InvalidDocument, InvalidUserId


class Mem0View(MemoryAPIView):
    """Binds the user whom `named_user` reads from the call. Views that reach no memory leave it as it is."""

    schema: Any = UserlessSchema()

    def named_user(self, request: Request) -> str | None:
        """The user as the caller calls it, None for the caller itself. Raises whatever is wrong with the call."""
        raise NotImplementedError

    def check_throttles(self, request: Request) -> None:
        """Bind the user, then count; a call that names no user rightly counts for its token."""
        try:
            self.bind_user(request)
        finally:
            super().check_throttles(request)

    def bind_user(self, request: Request) -> None:
        """From here on `current_user_id` is the user whom the call names."""
        if not hasattr(self, str(request.method).lower()):
            self.http_method_not_allowed(request)  # whatever else may be wrong with the call
        if request.META.get("HTTP_X_MEMORY_USER") is not None:
            raise InvalidDocument(USER_HEADER, f"Here a call names its user in {USER}.")
        bind_identity(request._request, self._reaching(self.named_user(request)))

    @property
    def caller(self) -> Caller:
        found = self.request._request.memory_identity  # type: ignore[attr-defined]
        return Caller(found.account, found.token)

    @property
    def identity(self) -> Identity:
        """The caller and the user of this call."""
        found: Identity = self.request._request.memory_identity  # type: ignore[attr-defined]
        return found

    def _reaching(self, name: str | None) -> Identity:
        caller = self.caller
        if name == ANYONE:
            if caller.namespace is not None:
                raise InvalidDocument(USER, ONE_USER)
            name = None
        try:
            return caller.reaching(name)
        except InvalidUserId as error:
            raise InvalidDocument(USER, str(error)) from None
