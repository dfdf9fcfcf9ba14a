"""What a token may do: read, write, erase. A person's browser session may do all of it.

To act for users is no scope: it is the permission `memory.act_for_users` of the service's account.
"""

from typing import Any

from django.db import models

from memory.access.identity import MissingScope


class TokenScope(models.TextChoices):
    """What a token may do with the memories that it reaches."""

    READ = "read", "read"
    WRITE = "write", "write"
    ERASE = "erase", "erase"


ALL = [scope.value for scope in TokenScope]
BY_METHOD = {
    "GET": TokenScope.READ,
    "HEAD": TokenScope.READ,
    "OPTIONS": TokenScope.READ,
    "POST": TokenScope.WRITE,
    "PUT": TokenScope.WRITE,
    "PATCH": TokenScope.WRITE,
    "DELETE": TokenScope.ERASE,
}


def require(token: Any, scope: TokenScope) -> None:
    """Raise MissingScope unless the token (None: a session) has this scope."""
    if token is not None and scope not in token.scopes:
        raise MissingScope(f"This token may not {scope.value}: it lacks the scope of that name.")
