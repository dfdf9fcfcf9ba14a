"""Codecs between plain values and the bytes that are sealed; `SealedBytes`, the only type a sealed column takes.

The AAD binds a seal to its user, not to its column. So after somebody has swapped two of a user's seals in the
database, both open, in the wrong columns. A codec then raises InvalidTag for bytes of another kind.
"""

import json
import re
from collections.abc import Sequence
from datetime import timedelta, timezone
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from cryptography.exceptions import InvalidTag

# Unicode's category Cc.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def has_control_characters(text: str) -> bool:
    """Whether it holds a control character of C0 or C1, or DEL: a NUL, a tab, an end of line."""
    return _CONTROL.search(text) is not None


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
        return value.encode("utf-8")

    def decode(self, data: bytes) -> str:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidTag from None


class JSONCodec:
    """A JSON object (RFC 8259: no NaN, no infinity), compact, UTF-8. Raises TypeError for anything but a dict."""

    _encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, dict):
            raise TypeError(f"A sealed object takes dict, not {type(value).__name__}.")
        return self._encoder.encode(value).encode("utf-8")

    def decode(self, data: bytes) -> Any:
        try:
            value = json.loads(data.decode("utf-8"))  # given bytes, it would guess at encodings first
        except (ValueError, RecursionError):
            raise InvalidTag from None
        if not isinstance(value, dict):
            raise InvalidTag
        return value


_json = JSONCodec()


class Context(NamedTuple):
    """A chunk's title and author, and the zone of the time it is about, in seconds east of UTC."""

    title: str = ""
    author: str = ""
    utc_offset: int = 0


class ContextCodec:
    """A `Context` as a JSON object of those members that are set. Raises TypeError for anything else."""

    def encode(self, value: Any) -> bytes:
        if not isinstance(value, Context):
            raise TypeError(f"A sealed context takes Context, not {type(value).__name__}.")
        return _encoded(value)

    def decode(self, data: bytes) -> Context:
        try:
            context = Context(**_json.decode(data))
            timezone(timedelta(seconds=context.utc_offset))  # raises unless it is a zone's offset
        except (TypeError, ValueError, OverflowError):
            raise InvalidTag from None
        if not (isinstance(context.title, str) and isinstance(context.author, str)):
            raise InvalidTag
        return context


@lru_cache(maxsize=1_024)  # many chunks have the same
def _encoded(context: Context) -> bytes:
    return _json.encode({name: member for name, member in context._asdict().items() if member})


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
