"""Keyset cursors: the id of the last chunk of a page, as 22 characters of URL-safe base64."""

import base64
import binascii
import uuid

from rest_framework.exceptions import ValidationError


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
