"""JSON as RFC 8259 means it, up to MEMORY_MAX_BODY_BYTES."""

import json
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser


class BodyTooLarge(APIException):
    status_code = 413
    default_detail = "The request body is too large."


class StrictJSONParser(BaseParser):
    """Refuses doubled names (parsers disagree on which one counts), bodies that are not UTF-8, and depth bombs.

    NaN and the infinities pass, for no field takes them: so the refusal can name the field.
    """

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        body = _read(stream, parser_context["request"].META.get("CONTENT_LENGTH"))
        return strict_json(body)


def strict_json(body: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ParseError, which says where it is wrong and repeats nothing of it."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise ParseError("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise ParseError(f"The body is not JSON: line {error.lineno}, column {error.colno}.") from None
    except RecursionError:
        raise ParseError("The body is nested too deeply.") from None
    except _DoubledName:
        raise ParseError("An object in the body has the same name twice.") from None
    except ValueError:  # Python refuses integers of thousands of digits
        raise ParseError("A number in the body is too long.") from None


class _DoubledName(Exception):
    """Two members of one JSON object share their name."""


def _read(stream: IO[Any], content_length: str | None) -> bytes:
    limit = settings.MEMORY_MAX_BODY_BYTES
    if content_length and content_length.isdigit() and int(content_length) > limit:
        raise BodyTooLarge
    body = stream.read(limit + 1)
    if len(body) > limit:
        raise BodyTooLarge
    return body


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _DoubledName
    return members
