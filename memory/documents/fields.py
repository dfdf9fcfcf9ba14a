"""Fields that take exactly what they say: no coercion, no trimming, no control over the service's memory.

Findings about size carry the code `too_large`, from which the exception handler makes a 413.
"""

import json
import math
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np
from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from memory.exceptions import safe_name
from memory.index.context import is_storable_time
from memory.index.labels import Scalar
from memory.sealing.codecs import has_control_characters

MAX_METADATA_DEPTH = 16
UUID_LENGTH = 36


class ExactText(serializers.CharField):
    """A string that is not blank (unless allowed), holds no NUL and no lone surrogate, of at most `limit` bytes.

    `limit` is a number of UTF-8 bytes, or the name of the setting that holds it.
    """

    default_error_messages = {
        "invalid": "This must be a string.",
        "too_large": "This is larger than {limit} bytes.",
    }

    def __init__(self, *, limit: int | str, **kwargs: Any) -> None:
        self.limit = limit
        super().__init__(trim_whitespace=False, **kwargs)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if isinstance(data, str) and not self.allow_blank and not data.strip():
            self.fail("blank")
        return super().run_validation(data)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        if len(data.encode("utf-8", "surrogatepass")) > self.limit_in_bytes:
            self.fail("too_large", limit=self.limit_in_bytes)
        return data

    @property
    def limit_in_bytes(self) -> int:
        return _limit(self.limit)


class ExactLine(ExactText):
    """As ExactText, and without control characters: a name that stands in addresses and logs."""

    default_error_messages = {"control_characters": "This must not contain control characters."}

    def to_internal_value(self, data: Any) -> str:
        line = super().to_internal_value(data)
        if has_control_characters(line):
            self.fail("control_characters")
        return line


@extend_schema_field({"type": "string", "format": "uuid"})
class ExactId(serializers.UUIDField):
    """A UUID in its usual form of 36 characters: not an integer, not a URN."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str) or len(data) != UUID_LENGTH:
            self.fail("invalid", value="This")
        return super().to_internal_value(data)


class ExactInteger(serializers.IntegerField):
    """A JSON integer: not "5", not 5.0, not true."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return data


class ExactBoolean(serializers.BooleanField):
    """A JSON true or false: not 1, not "yes"."""

    def to_internal_value(self, data: Any) -> bool:
        if type(data) is not bool:
            self.fail("invalid", input="This")
        return data


class ExactTime(serializers.DateTimeField):
    """An ISO 8601 time with its offset: without one it would mean another moment on another server."""

    default_error_messages = {
        "offset": "This must be an ISO 8601 time with an offset, such as 2026-01-31T09:30:00Z, in the years 1 to 9999.",
    }

    def to_internal_value(self, value: Any) -> datetime:
        try:
            time = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            time = None
        if time is None or not is_storable_time(time):
            self.fail("offset")
        return time


class Embedding(serializers.Field[list[float], Any, Any, Any]):
    """A vector of MEMORY_EMBEDDING_DIM numbers that a float32 can hold, not all of them zero."""

    default_error_messages = {
        "invalid": "This must be a list of numbers.",
        "dimension": "This must have {dimension} numbers.",
        "not_finite": "Every number must be finite in single precision.",
        "zero": "A zero vector has no direction.",
    }

    def to_internal_value(self, data: Any) -> list[float]:
        if not isinstance(data, list):
            self.fail("invalid")
        dimension = settings.MEMORY_EMBEDDING_DIM
        if len(data) != dimension:
            self.fail("dimension", dimension=dimension)
        if not all(type(number) in (int, float) for number in data):
            self.fail("invalid")
        return self._checked(data)

    def _checked(self, numbers: list[float]) -> list[float]:
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                norm = float(np.linalg.norm(np.array(numbers, dtype=np.float64).astype(np.float32)))
        except OverflowError:  # an integer beyond float64
            norm = math.inf
        if not math.isfinite(norm):
            self.fail("not_finite")
        if norm == 0:
            self.fail("zero")
        return [float(number) for number in numbers]

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field({"type": "object", "additionalProperties": True})
class Metadata(serializers.Field[dict[str, Any], Any, Any, Any]):
    """A JSON object of at most MEMORY_MAX_METADATA_BYTES, without NaN, infinities, NUL or lone surrogates."""

    default_error_messages = {
        "invalid": "This must be an object.",
        "content": "This may hold no NaN, infinity, NUL or lone surrogate.",
        "depth": "This is nested too deeply.",
        "too_large": "This is larger than {limit} bytes as JSON.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("invalid")
        self._check(data, MAX_METADATA_DEPTH)
        limit = settings.MEMORY_MAX_METADATA_BYTES
        if len(json.dumps(data, ensure_ascii=False).encode("utf-8")) > limit:
            self.fail("too_large", limit=limit)
        return data

    def _check(self, value: Any, depth: int) -> None:
        if depth < 0:
            self.fail("depth")
        match value:
            case dict():
                for key, member in value.items():
                    self._check(key, depth)
                    self._check(member, depth - 1)
            case list():
                for member in value:
                    self._check(member, depth - 1)
            case str() if not is_clean(value):
                self.fail("content")
            case float() if not math.isfinite(value):
                self.fail("content")

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": {
            "oneOf": [{"type": "string"}, {"type": "number"}, {"type": "boolean"}],
            "nullable": True,
        },
    }
)
class MetadataFilter(Metadata):
    """A flat JSON object of filterable keys and the scalar values they must have."""

    default_error_messages = {
        "scalar": "Each value must be a string, a number, true, false or null.",
        "key": "A key is not among the filterable ones.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        values = super().to_internal_value(data)
        if not all(isinstance(value, Scalar) for value in values.values()):
            self.fail("scalar")
        if not values.keys() <= set(settings.MEMORY_FILTERABLE_METADATA):
            self.fail("key")
        return values


class BoundedList(serializers.ListField):
    """A list that is counted before its members are looked at. `limit` is a number, or the name of a setting."""

    default_error_messages = {"too_large": "This has more than {limit} members."}

    def __init__(self, *, limit: int | str, **kwargs: Any) -> None:
        self.limit = limit
        super().__init__(allow_empty=False, **kwargs)

    def to_internal_value(self, data: Any) -> list[Any]:
        limit = _limit(self.limit)
        if isinstance(data, list) and len(data) > limit:
            self.fail("too_large", limit=limit)
        return super().to_internal_value(data)


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses what it does not know, so that a misspelt field is an answer and not a silence."""

    def to_internal_value(self, data: Any) -> Any:
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        findings = {safe_name(name): ["There is no such field."] for name in unknown}
        try:
            values = super().to_internal_value(data)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({**findings, **error.detail}) from None  # type: ignore[dict-item]
        if findings:
            raise serializers.ValidationError(findings)
        return values


def is_clean(text: str) -> bool:
    """No NUL, which Postgres cannot store, and no lone surrogate, which UTF-8 cannot spell."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _limit(limit: int | str) -> int:
    return getattr(settings, limit) if isinstance(limit, str) else limit
