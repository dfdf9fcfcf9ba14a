"""Parses request bodies: strict JSON, up to MEMORY_MAX_BODY_BYTES."""

from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

from memory.documents.strict_json import strict_json
from memory.exceptions import InvalidJSON


class BodyTooLarge(APIException):
    status_code = 413
    default_detail = "The request body is too large."


class StrictJSONParser(BaseParser):
    """Reads no more than the limit, and refuses what `strict_json` refuses."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Any = None) -> Any:
        body = _read(stream, parser_context["request"].META.get("CONTENT_LENGTH"))
        try:
            return strict_json(body)
        except InvalidJSON as error:
            raise ParseError(str(error)) from None


class MergePatchParser(StrictJSONParser):
    """The media type of RFC 7396, beside plain JSON, which means the same to a PATCH."""

    media_type = "application/merge-patch+json"


def _read(stream: IO[Any], content_length: str | None) -> bytes:
    limit = settings.MEMORY_MAX_BODY_BYTES
    if content_length and content_length.isdigit() and int(content_length) > limit:
        raise BodyTooLarge
    body = stream.read(limit + 1)
    if len(body) > limit:
        raise BodyTooLarge
    return body
