"""Keyset cursors in URL-safe base64, which say where a page ended.

22 characters for a chunk's id, or its place in a document; 32 for its time, in microseconds since 1970, and its id.
"""

import base64
import binascii
import uuid
from datetime import UTC, datetime, timedelta

from rest_framework.exceptions import ValidationError

from memory.listing import TimePlace

MAX_PLACE = 2**31 - 1
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
TIME_BYTES, ID_BYTES = 8, 16


def encode_cursor(last: uuid.UUID | TimePlace | None) -> str | None:
    """22 characters for a chunk id, 32 for one with a time, None for the end."""
    if last is None:
        return None
    if isinstance(last, uuid.UUID):
        data = last.bytes
    else:
        data = ((last.time - EPOCH) // MICROSECOND).to_bytes(TIME_BYTES, "big", signed=True) + last.id.bytes
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_cursor(cursor: str) -> uuid.UUID | TimePlace:
    """The chunk id of a cursor, or time and id. Raises ValidationError for anything `encode_cursor` did not make."""
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        time, chunk_id = data[:-ID_BYTES], uuid.UUID(bytes=data[-ID_BYTES:])
        since_epoch = int.from_bytes(time, "big", signed=True) * MICROSECOND
        last = TimePlace(EPOCH + since_epoch, chunk_id) if time else chunk_id
    except (binascii.Error, ValueError, OverflowError):
        raise ValidationError("This is not a cursor of ours.") from None
    if encode_cursor(last) != cursor:
        raise ValidationError("This is not a cursor of ours.")
    return last


def encode_place(last: int | None) -> str | None:
    """22 characters for a place in a document, None for the end."""
    return encode_cursor(None if last is None else uuid.UUID(int=last))


def decode_place(cursor: str) -> int:
    """The place of a cursor. Raises ValidationError for anything `encode_place` did not make."""
    place = decode_cursor(cursor)
    if not isinstance(place, uuid.UUID) or place.int > MAX_PLACE:
        raise ValidationError("This is not a cursor of ours.")
    return place.int
