"""Keyset cursors: 22 characters of URL-safe base64 for the id of a page's last chunk, or its place in a document."""

import base64
import binascii
import uuid

from rest_framework.exceptions import ValidationError

MAX_PLACE = 2**31 - 1


def encode_cursor(last: uuid.UUID | None) -> str | None:
    """22 characters for a chunk id, None for the end."""
    return None if last is None else base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> uuid.UUID:
    """The chunk id of a cursor. Raises ValidationError for anything `encode_cursor` did not make."""
    try:
        last = uuid.UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        raise ValidationError("This is not a cursor of ours.") from None
    if encode_cursor(last) != cursor:
        raise ValidationError("This is not a cursor of ours.")
    return last


def encode_place(last: int | None) -> str | None:
    """22 characters for a place in a document, None for the end."""
    return encode_cursor(None if last is None else uuid.UUID(int=last))


def decode_place(cursor: str) -> int:
    """The place of a cursor. Raises ValidationError for anything `encode_place` did not make."""
    place = decode_cursor(cursor).int
    if place > MAX_PLACE:
        raise ValidationError("This is not a cursor of ours.")
    return place
