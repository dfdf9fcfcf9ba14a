"""Serializers of one document or of many: what their JSON may look like, and the documents it stands for."""

import uuid
from collections.abc import Callable
from typing import Any

from django.conf import settings
from rest_framework import serializers

from memory.documents.document import Chunk, Document
from memory.documents.fields import (
    BoundedList,
    Embedding,
    ExactLine,
    ExactText,
    ExactTime,
    Metadata,
    StrictSerializer,
)
from memory.documents.splitting import ChunkAllowance
from memory.index.context import header

MAX_DOC_ID_BYTES = 512
MAX_SOURCE_BYTES = 255
MAX_TITLE_BYTES = 512
MAX_AUTHOR_BYTES = 255


class ChunkInput(StrictSerializer):
    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES")
    embedding = Embedding(required=False, help_text="Of the text with its header; the service embeds when left out.")
    author = ExactLine(
        limit=MAX_AUTHOR_BYTES, required=False, allow_blank=True, default="", help_text="Who said or wrote it."
    )
    occurred_at = ExactTime(required=False, help_text="The time it is about, when that is not the document's.")


class ChunkField(serializers.Field[Any, Any, Any, Any]):
    """One chunk: its text, or {text, author, occurred_at, embedding}."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        try:
            return ChunkInput().run_validation({"text": data} if isinstance(data, str) else data)
        except serializers.ValidationError as error:
            detail: Any = error.detail
            raise serializers.ValidationError(detail["text"] if isinstance(data, str) else detail) from None

    def to_representation(self, value: Any) -> Any:
        return value


class DocumentInput(StrictSerializer):
    """One document: a `text`, which is split when it is long, or ordered `chunks`, which are kept as they are."""

    doc_id = ExactLine(
        limit=MAX_DOC_ID_BYTES, required=False, help_text="Replaces what stands under it; made up when left out."
    )
    source = ExactLine(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True, default="")  # type: ignore[assignment]
    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES", required=False)
    embedding = Embedding(required=False, help_text="Of `text`, which then stays in one piece.")
    chunks = BoundedList(child=ChunkField(), limit="MEMORY_MAX_CHUNKS", required=False)
    metadata = Metadata(required=False)
    title = ExactLine(limit=MAX_TITLE_BYTES, required=False, allow_blank=True, default="")
    occurred_at = ExactTime(required=False, help_text="The time it is about.")
    expires_at = ExactTime(required=False, help_text="From then on it is in no answer, and is deleted in due course.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("text" in attrs) == ("chunks" in attrs):
            raise serializers.ValidationError({"text": "Give either text or chunks."})
        if "embedding" in attrs and "chunks" in attrs:
            raise serializers.ValidationError({"embedding": "Give each chunk its own embedding."})
        return attrs


class BatchInput(StrictSerializer):
    documents = BoundedList(child=DocumentInput(), limit="MEMORY_MAX_BATCH")


def given_documents(data: Any) -> tuple[list[dict[str, Any]], bool]:
    """The fields of each document as they were given, unsplit, and whether they came in a list.

    Raises DRF's ValidationError for the shape of the JSON.
    """
    batch = isinstance(data, dict) and "documents" in data
    serializer = (BatchInput if batch else DocumentInput)(data=data)
    serializer.is_valid(raise_exception=True)
    return (serializer.validated_data["documents"] if batch else [serializer.validated_data]), batch


def documents_from(data: Any) -> list[Document]:
    """The documents of a request body or of a line: one document, or {"documents": [...]}; long texts are split.

    Raises DRF's ValidationError for the shape of the JSON, DocumentTooLarge for too many chunks.
    """
    given, batch = given_documents(data)
    allowance = ChunkAllowance()
    # Before anything is split: a hundred documents of a thousand letters each, 400 KB in all, are 100,000 rows.
    allowance.take(sum(len(fields.get("chunks", ())) for fields in given), "documents")
    return [
        _document(fields, allowance, f"documents[{number}].text" if batch else "text")
        for number, fields in enumerate(given)
    ]


def with_doc_ids(data: Any, name: Callable[[int], str]) -> Any:
    """A request body in which every document that has no doc_id gets one, by its place. Of another shape: as it is."""
    if not isinstance(data, dict):
        return data
    if "documents" not in data:
        return {"doc_id": name(0), **data}
    given = data["documents"] if isinstance(data["documents"], list) else []
    named = [{"doc_id": name(n), **each} if isinstance(each, dict) else each for n, each in enumerate(given)]
    return {**data, "documents": named} if named else data


def _document(fields: dict[str, Any], allowance: ChunkAllowance, place: str) -> Document:
    return Document(
        doc_id=fields.get("doc_id") or str(uuid.uuid4()),
        source=fields["source"],
        chunks=_chunks(fields, allowance, place),
        metadata=fields.get("metadata", {}),
        title=fields["title"],
        occurred_at=fields.get("occurred_at"),
        expires_at=fields.get("expires_at"),
    )


def _chunks(fields: dict[str, Any], allowance: ChunkAllowance, place: str) -> tuple[Chunk, ...]:
    if "chunks" in fields:
        return tuple(Chunk(**chunk) for chunk in fields["chunks"])
    if "embedding" in fields:
        return (Chunk(text=fields["text"], embedding=fields["embedding"]),)
    line = header(fields["title"], "", fields.get("occurred_at"))
    return allowance.split(fields["text"], place, header=line if settings.MEMORY_CONTEXT_HEADER else "")
