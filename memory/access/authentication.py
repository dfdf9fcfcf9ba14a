"""Authenticates a request: from its credential to an `Identity`, which DRF is then given.

A bearer token wins over a browser session. A wrong token is an error even when the session would suffice: otherwise its
owner would not notice that the token has no effect.
"""

from typing import Any

from django.http import HttpRequest
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import SessionAuthentication
from rest_framework.request import Request

from memory.access.identity import USER_HEADER, Caller, Identity, InvalidCredential, user_id_for
from memory.access.tokens import AccessToken
from memory.security import hmac_user

SCHEME = "Bearer"
# Of mem0's client, at the door of its own.
TOKEN_SCHEME = "Token"  # noqa: S105


def identify(request: HttpRequest) -> Identity | None:
    """The caller, or None without a credential. Raises IdentityError, or django.db.Error when the database is away."""
    authorization = request.META.get("HTTP_AUTHORIZATION")
    header = request.META.get("HTTP_X_MEMORY_USER")
    if authorization is not None:
        token = _token_in(authorization, SCHEME)
        return Identity(user_id=user_id_for(token.user, header), account=token.user, token=token)
    account: Any = request.user
    if not account.is_authenticated:
        return None
    return Identity(user_id=user_id_for(account, header), account=account)


def identify_caller(request: HttpRequest) -> Caller | None:
    """The holder of a request's token, where the request itself names the user, by and by: see `bind_identity`.

    None without a token: a browser's session does not count. Raises InvalidCredential, django.db.Error.
    """
    authorization = request.META.get("HTTP_AUTHORIZATION")
    if authorization is None:
        return None
    token = _token_in(authorization, SCHEME, TOKEN_SCHEME)
    return Caller(account=token.user, token=token)


def bind_identity(request: Any, identity: Identity) -> None:
    """From here on the request is this user's, to the door of its statements, to throttles and to logs."""
    request.memory_identity = identity
    request.tenant_label = hmac_user(identity.user_id)[:8]


def _token_in(authorization: str, *schemes: str) -> AccessToken:
    scheme, _, secret = authorization.partition(" ")
    # No token of ours has a NUL or a byte beyond ASCII, and Postgres takes no NUL.
    known = scheme.lower() in [each.lower() for each in schemes]
    if not known or not (secret.isascii() and secret.isprintable()):
        raise InvalidCredential(InvalidCredential.__doc__)
    token = AccessToken.objects.find(secret)
    if token is None:
        raise InvalidCredential(InvalidCredential.__doc__)
    token.note_use()
    return token


class IdentityAuthentication(SessionAuthentication):
    """Hands the identity that the middleware found to DRF; a browser session needs its CSRF token as well."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        identity = getattr(request._request, "memory_identity", None)
        if isinstance(identity, Exception):
            raise identity
        if identity is None:
            return None
        if identity.token is None:
            self.enforce_csrf(request)
        return identity.account, identity.token

    def authenticate_header(self, request: Request) -> str:
        return f'{SCHEME} realm="memory"'


class IdentityScheme(OpenApiAuthenticationExtension):
    """Describes `IdentityAuthentication` in the OpenAPI schema."""

    target_class = "memory.access.authentication.IdentityAuthentication"
    name = ["accessToken", "session"]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        return [{name: []} for name in self.name]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "description": f"An access token, `smem_…`. A service's token names its user in `{USER_HEADER}`.",
            },
            {"type": "apiKey", "in": "cookie", "name": "sessionid", "description": "A session of the admin."},
        ]
