"""Handles: ids given to a service's clients that carry the name of the user whose row they stand for, sealed.

Row-level security cannot look for a row across users, and some clients send an id alone. So the id they were given
tells whose it is, and nobody but this service reads that out of it.

    base64url( AES-SIV(name of the user, padded with NUL to 16 bytes || UUID of the row; associated: kind, namespace) )

AES-SIV (RFC 5297) is deterministic: one row has one handle. Its key comes by HKDF (RFC 5869) from SECRET_KEY, so that
handles outlast the rotations of the other keys; SECRET_KEY_FALLBACKS open as well. A handle grants nothing: the service
that it is bound to may name any user of its own anyway.
"""

import base64
import binascii
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

LABEL = b"sealed-memory handles 1"
KEY_BYTES, BLOCK, UUID_BYTES = 64, 16, 16


class InvalidHandle(Exception):
    """Not a handle of this kind and this service: forged, cut off, or another's."""


def seal_handle(row_id: UUID, *, name: str, kind: str, namespace: str) -> str:
    """The handle of a row of the user `name` of the service `namespace`. `kind`: what rows of that sort are called."""
    padded = name.encode()
    padded += b"\0" * (-len(padded) % BLOCK)
    sealed = _cipher(settings.SECRET_KEY).encrypt(padded + row_id.bytes, _associated(kind, namespace))
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def open_handle(handle: str, *, kind: str, namespace: str) -> tuple[str, UUID]:
    """The user's name and the row's id. Raises InvalidHandle for anything `seal_handle` did not make for them."""
    sealed = _decoded(handle)
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            opened = _cipher(secret).decrypt(sealed, _associated(kind, namespace))
        except (InvalidTag, ValueError):  # ValueError: shorter than a tag
            continue
        return opened[:-UUID_BYTES].rstrip(b"\0").decode(), UUID(bytes=opened[-UUID_BYTES:])
    raise InvalidHandle(InvalidHandle.__doc__)


def _decoded(handle: str) -> bytes:
    try:
        sealed = base64.b64decode(handle + "=" * (-len(handle) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        raise InvalidHandle(InvalidHandle.__doc__) from None
    if base64.urlsafe_b64encode(sealed).decode().rstrip("=") != handle:  # one row has one handle
        raise InvalidHandle(InvalidHandle.__doc__)
    return sealed


def _associated(kind: str, namespace: str) -> list[bytes]:
    return [kind.encode(), namespace.encode()]


@lru_cache(maxsize=8)
def _cipher(secret: str) -> AESSIV:
    derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=LABEL).derive(secret.encode())
    return AESSIV(derived)
