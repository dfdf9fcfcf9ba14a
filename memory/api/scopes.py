"""`HasScope`: every door asks whether the caller's token may do what the call does.

It is a default of all API views, so a door that says nothing is judged by its method: GET reads, DELETE erases,
anything else writes. A view says otherwise by `token_scopes`; a method with None there asks for itself, when it knows
more.
"""

from typing import Any

from rest_framework.permissions import BasePermission

from memory.access.scopes import BY_METHOD, TokenScope, require


class HasScope(BasePermission):
    """Raises MissingScope for a token that may not do this."""

    def has_permission(self, request: Any, view: Any) -> bool:
        method = str(request.method)
        said: dict[str, TokenScope | None] = getattr(view, "token_scopes", {})
        scope = said[method] if method in said else BY_METHOD.get(method, TokenScope.WRITE)
        if scope is not None:
            require(request.auth, scope)
        return True
