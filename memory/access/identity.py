"""Canonical user ids, and `Identity`: the caller of a request and the user whose memory it reaches.

A user id is exact UTF-8 of 1 to 255 bytes in one of two canonical forms:

    person:<pk>                           a Django account
    service:<namespace>:<external id>     a user that a service names in `X-Memory-User`

So a service's "5" is never person 5, and two services never share "alice": a namespace is a slug, it holds no colon.
"""

from dataclasses import dataclass
from typing import Any

from memory.exceptions import InvalidUserId, SealedMemoryError
from memory.sealing.codecs import has_control_characters
from memory.security import validate_user_id

USER_HEADER = "X-Memory-User"
# The users of benchmark commands, which erase them again: no service may own this namespace.
BENCHMARK_NAMESPACE = "benchmark"


class IdentityError(SealedMemoryError):
    """The caller cannot be identified. `field`: what of the request is at fault, where it is not the credential."""

    field = USER_HEADER


class InvalidCredential(IdentityError):
    """The access token is unknown, expired, revoked or malformed, or its account is inactive."""


class UserHeaderMissing(IdentityError):
    """This token acts for a service's users: name one in X-Memory-User."""


class UserNotNamed(UserHeaderMissing):
    """This token acts for a service's users: name the one whom the call is about."""

    field = "user_id"


class InvalidUserHeader(IdentityError):
    """X-Memory-User must be UTF-8, without control characters or white space around it, and short enough for a user id
    of 255 bytes."""


class ActingForUsersDenied(IdentityError):
    """This credential may not act for other users: X-Memory-User is refused."""


class NamingUsersDenied(ActingForUsersDenied):
    """This credential reaches its own memory only: it names no user, or `*`."""

    field = "user_id"


class MissingScope(IdentityError):
    """The token may not do this: it lacks a scope."""


@dataclass(frozen=True)
class Identity:
    """A caller, and the user whose memory the caller reaches.

    `account` is the Django user that owns the credential; `token` the access token, None for a browser session.
    """

    user_id: str
    account: Any
    token: Any = None

    def __repr__(self) -> str:
        return f"<Identity of account {self.account.pk}>"


@dataclass(frozen=True)
class Caller:
    """Who holds a token, before the call has told whose memory it is about. `account` and `token` as of Identity."""

    account: Any
    token: Any

    def __repr__(self) -> str:
        return f"<Caller of account {self.account.pk}>"

    @property
    def namespace(self) -> str | None:
        """Of the service that names its users; None for a caller who reaches one memory only, its own."""
        return acting_namespace(self.account)

    def reaching(self, external_id: str | None) -> Identity:
        """This caller as one who reaches the memory of the user that it calls `external_id`, or else its own.

        Raises InvalidUserId, NamingUsersDenied, UserNotNamed.
        """
        namespace = self.namespace
        if namespace is None:
            if external_id is not None:
                raise NamingUsersDenied(NamingUsersDenied.__doc__)
            return Identity(user_id=person_user_id(self.account.pk), account=self.account, token=self.token)
        if external_id is None:
            raise UserNotNamed(UserNotNamed.__doc__)
        user_id = service_user_id(namespace, external_id)
        return Identity(user_id=user_id, account=self.account, token=self.token)


def acting_namespace(account: Any) -> str | None:
    """The namespace in which an account names users; None for one that may not."""
    service = getattr(account, "service_account", None)
    return service.namespace if service is not None and service.may_act_for_users else None


def person_user_id(pk: int) -> str:
    """The canonical user id of a Django account."""
    return f"person:{pk}"


def service_user_id(namespace: str, external_id: str) -> str:
    """The canonical user id of the user whom a service calls `external_id`.

    Raises InvalidUserId, also for white space at an end: HTTP servers strip it from a header, and "victim " would be
    "victim". A service whose own ids can end so must refuse or encode them.
    """
    if not external_id:
        raise InvalidUserId("A service's user has a name.")
    if external_id != external_id.strip():
        raise InvalidUserId("The name of a service's user neither begins nor ends with white space.")
    if has_control_characters(external_id):
        raise InvalidUserId("The name of a service's user holds no control characters.")
    user_id = f"service:{namespace}:{external_id}"
    validate_user_id(user_id)
    return user_id


def user_id_for(account: Any, header: str | None) -> str:
    """Whose memory a call of `account` is about, given its `X-Memory-User` header as WSGI hands it over (Latin-1).

    Raises ActingForUsersDenied, UserHeaderMissing or InvalidUserHeader.
    """
    namespace = acting_namespace(account)
    if namespace is None:
        if header is not None:
            raise ActingForUsersDenied(ActingForUsersDenied.__doc__)
        return person_user_id(account.pk)
    if header is None:
        raise UserHeaderMissing(UserHeaderMissing.__doc__)
    return _user_named_in(header, namespace)


def _user_named_in(header: str, namespace: str) -> str:
    try:
        return service_user_id(namespace, header.encode("latin-1").decode("utf-8"))
    except (UnicodeError, InvalidUserId):
        raise InvalidUserHeader(InvalidUserHeader.__doc__) from None
