"""Codecs between plain values and the bytes that are sealed; `SealedBytes`, the only type a sealed column takes.

The AAD binds a seal to its user, not to its column. So after somebody has swapped two of a user's seals in the
database, both open, in the wrong columns. A codec then raises InvalidTag for bytes of another kind.

A seal is 28 bytes longer than what it holds, so its size tells how long a text is. With MEMORY_SEAL_PADDING texts and
objects are filled up to a multiple of that many bytes before they are sealed, with bytes 0xFF, which UTF-8 (RFC 3629)
has nowhere. So what is filling is never in doubt, and seals from before there was any open as they did.
"""

import json
import re
from collections.abc import Sequence
from datetime import timedelta, timezone
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag
from django.conf import settings

FILLING = b"\xff"

# Unicode's category Cc.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def has_control_characters(text: str) -> bool:
    """Whether it holds a control character of C0 or C1, or DEL: a NUL, a tab, an end of line."""
    return _CONTROL.search(text) is not None


def filled(data: bytes) -> bytes:
    """UTF-8, filled up to a multiple of MEMORY_SEAL_PADDING bytes; as it is where that is 0."""
    size = settings.MEMORY_SEAL_PADDING
    return data.ljust(-(-len(data) // size) * size, FILLING) if size else data


def unfilled(data: bytes) -> bytes:
    """What `filled` was given, whatever the setting was then."""
    return data.rstrip(FILLING)


class SealedBytes(bytes):
    """nonce || ciphertext || tag. Its repr shows the size alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<sealed, {len(self)} bytes>"

    __str__ = __repr__


class Codec(Protocol):
    """Turns one kind of plain value into bytes and back. `decode` raises InvalidTag for bytes of another kind."""

    def encode(self, value: Any) -> bytes: ...

    def decode(self, data: bytes) -> Any: ...


class TextCodec:
    """str as UTF-8. Raises UnicodeEncodeError for lone surrogates, TypeError for anything but str."""

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"A sealed text takes str, not {type(value).__name__}.")
        return filled(value.encode("utf-8"))

    def decode(self, data: bytes) -> str:
        try:
            return unfilled(data).decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidTag from None


class JSONCodec:
    """A JSON object (RFC 8259: no NaN, no infinity), compact, UTF-8. Raises TypeError for anything but a dict."""

    _encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def encode(self, value: Any) -> bytes:
        return filled(self.plain(value))

    def plain(self, value: Any) -> bytes:
        """The object without any filling."""
        if not isinstance(value, dict):
            raise TypeError(f"A sealed object takes dict, not {type(value).__name__}.")
        return self._encoder.encode(value).encode("utf-8")

    def decode(self, data: bytes) -> Any:
        try:
            value = json.loads(unfilled(data).decode("utf-8"))  # given bytes, it would guess at encodings first
        except (ValueError, RecursionError):
            raise InvalidTag from None
        if not isinstance(value, dict):
            raise InvalidTag
        return value


_json = JSONCodec()


class Context(NamedTuple):
    """A chunk's title and author, and the zone of the time it is about, in seconds east of UTC.

    `doc_id` and `source` are those of a chunk whose columns hold labels of them, and else empty.
    """

    title: str = ""
    author: str = ""
    utc_offset: int = 0
    doc_id: str = ""
    source: str = ""


class ContextCodec:
    """A `Context` as a JSON object of those members that are set. Raises TypeError for anything else."""

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, Context):
            raise TypeError(f"A sealed context takes Context, not {type(value).__name__}.")
        return filled(_encoded(value))

    def decode(self, data: bytes) -> Context:
        try:
            context = Context(**_json.decode(data))
            timezone(timedelta(seconds=context.utc_offset))  # raises unless it is a zone's offset
        except (TypeError, ValueError, OverflowError):
            raise InvalidTag from None
        if not all(isinstance(each, str) for each in (context.title, context.author, context.doc_id, context.source)):
            raise InvalidTag
        return context


@lru_cache(maxsize=1_024)  # many chunks have the same
def _encoded(context: Context) -> bytes:
    return _json.plain({name: member for name, member in context._asdict().items() if member})


class VectorCodec:
    """A float32 vector, shape (d,), as little-endian bytes: 4 × d of them. Raises ValueError unless finite."""

    def encode(self, value: Sequence[float] | np.ndarray) -> bytes:
        vector = np.asarray(value, dtype="<f4")
        if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
            raise ValueError("A sealed vector is one-dimensional, not empty and finite.")
        return vector.tobytes()

    def decode(self, data: bytes) -> np.ndarray:
        if not data or len(data) % 4:
            raise InvalidTag
        vector = np.frombuffer(data, dtype="<f4")
        if not np.isfinite(vector).all():
            raise InvalidTag
        return vector
