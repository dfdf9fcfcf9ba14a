"""A document on a line of JSON.

As `POST memories/index` takes it, with a `doc_id`:

    {"doc_id": "a", "text": "…", "source": "notes", "metadata": {}}

or as a BEIR corpus has it, `{"_id": "a", "title": "…", "text": "…"}`. A title that is too long for one, and that of a
document without text, goes into the text. An import also takes the lines of an export
(`memory.documents.exported`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rest_framework.exceptions import ValidationError

from memory.documents.document import Document
from memory.documents.exported import ExportedPart, ExportMark, mark_from, part_from
from memory.documents.shape import MAX_TITLE_BYTES, documents_from
from memory.documents.strict_json import strict_json
from memory.exceptions import InvalidDocument, InvalidJSON


class BadLine(ValueError):
    """A line that is no document. The message says why."""


def parse_line(line: bytes) -> Document:
    """The document on a line. Raises BadLine."""
    with _findings_as_bad_lines():
        return _document(_object(line))


def parse_import_line(line: bytes, *, with_embeddings: bool = True) -> Document | ExportedPart | ExportMark:
    """As `parse_line`, or what a line of an export holds, on demand without its embeddings."""
    with _findings_as_bad_lines():
        value = _object(line)
        if "export" in value:
            return mark_from(value)
        if "stored" in value:
            return part_from(value, with_embeddings=with_embeddings)
        return _document(value)


@contextmanager
def _findings_as_bad_lines() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        raise BadLine(_first_finding(error.detail)) from None
    except (InvalidDocument, InvalidJSON) as error:
        raise BadLine(str(error)) from None


def _object(line: bytes) -> dict[str, Any]:
    value = strict_json(line)
    if not isinstance(value, dict):
        raise BadLine("is no JSON object")
    return value


def _document(value: dict[str, Any]) -> Document:
    fields = _from_beir(value) if "_id" in value else value
    if "doc_id" not in fields:
        raise BadLine("doc_id: is missing")
    (document,) = documents_from(fields)
    return document


def _from_beir(value: dict[str, Any]) -> dict[str, Any]:
    fields = {"doc_id": value["_id"], "text": value.get("text", ""), "metadata": value.get("metadata") or {}}
    title, text = value.get("title") or "", fields["text"]
    if not isinstance(title, str) or not isinstance(text, str):
        return fields | {"title": title}  # the serializer says what is wrong
    line = " ".join(title.split())
    fits = len(line.encode("utf-8", "replace")) <= MAX_TITLE_BYTES
    return fields | ({"title": line} if text.strip() and fits else {"text": f"{title} {text}".strip()})


def _first_finding(detail: Any, place: str = "") -> str:
    """`field: message` of the first finding in a serializer's errors, which nest as the data does."""
    if isinstance(detail, dict):
        name, inner = next(iter(detail.items()))
        within = f"[{name}]" if isinstance(name, int) else f".{name}" if place else str(name)
        return _first_finding(inner, place if name == "non_field_errors" else place + within)
    if isinstance(detail, list):
        return _first_finding(detail[0], place)
    return f"{place}: {detail}" if place else str(detail)
