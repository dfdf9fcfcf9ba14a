"""The shapes that go in and come out. Shape only: what they mean is `indexing`'s and `retrieval`'s business."""

import uuid
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from memory.api.fields import (
    BoundedList,
    Embedding,
    ExactBoolean,
    ExactInteger,
    ExactText,
    ExactTime,
    Metadata,
    MetadataFilter,
    StrictSerializer,
)
from memory.api.pagination import decode_cursor, encode_cursor
from memory.index.chunking import split_text
from memory.indexing import Chunk, Document
from memory.listing import Page
from rerank import SkipReason

MAX_DOC_ID_BYTES = 512
MAX_SOURCE_BYTES = 255
MAX_TOP_K = 100
DEFAULT_TOP_K = 10
MAX_PAGE = 100
DEFAULT_PAGE = 50


# --- In ---


class ChunkInput(StrictSerializer):
    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES")
    embedding = Embedding(required=False)


@extend_schema_field({"oneOf": [{"type": "string"}, {"$ref": "#/components/schemas/ChunkInputRequest"}]})
class ChunkField(serializers.Field[Any, Any, Any, Any]):
    """One chunk: its text, or {text, embedding}."""

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

    doc_id = ExactText(
        limit=MAX_DOC_ID_BYTES, required=False, help_text="Replaces what stands under it; made up when left out."
    )
    source = ExactText(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True, default="")  # type: ignore[assignment]
    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES", required=False)
    embedding = Embedding(required=False, help_text="Of `text`, which then stays in one piece.")
    chunks = BoundedList(child=ChunkField(), limit="MEMORY_MAX_CHUNKS", required=False)
    metadata = Metadata(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("text" in attrs) == ("chunks" in attrs):
            raise serializers.ValidationError({"text": "Give either text or chunks."})
        if "embedding" in attrs and "chunks" in attrs:
            raise serializers.ValidationError({"embedding": "Give each chunk its own embedding."})
        return attrs


class BatchInput(StrictSerializer):
    documents = BoundedList(child=DocumentInput(), limit="MEMORY_MAX_BATCH")

    def validate_documents(self, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        limit = settings.MEMORY_MAX_CHUNKS
        # Else a hundred documents of a thousand letters each, 400 KB in all, would be 100,000 rows to embed and seal.
        if sum(len(document.get("chunks", ())) for document in documents) > limit:
            raise serializers.ValidationError(f"Together these have more than {limit} chunks.", code="too_large")
        seen: set[str] = set()
        for index, document in enumerate(documents):
            doc_id = document.get("doc_id")
            if doc_id in seen:
                detail: Any = {index: {"doc_id": ["This doc_id stands in the list before."]}}
                raise serializers.ValidationError(detail)
            if doc_id is not None:
                seen.add(doc_id)
        return documents


def documents_from(data: Any) -> list[Document]:
    """The documents of a request body: one document, or {"documents": [...]}. Raises ValidationError."""
    batch = isinstance(data, dict) and "documents" in data
    serializer = (BatchInput if batch else DocumentInput)(data=data)
    serializer.is_valid(raise_exception=True)
    given = serializer.validated_data["documents"] if batch else [serializer.validated_data]
    return [_document(fields) for fields in given]


def _document(fields: dict[str, Any]) -> Document:
    return Document(
        doc_id=fields.get("doc_id") or str(uuid.uuid4()),
        source=fields["source"],
        chunks=tuple(_chunks(fields)),
        metadata=fields.get("metadata", {}),
    )


def _chunks(fields: dict[str, Any]) -> list[Chunk]:
    if "chunks" in fields:
        return [Chunk(text=chunk["text"], embedding=chunk.get("embedding")) for chunk in fields["chunks"]]
    if "embedding" in fields:
        return [Chunk(text=fields["text"], embedding=fields["embedding"])]
    return [Chunk(text=piece) for piece in split_text(fields["text"])]


class QueryInput(StrictSerializer):
    query = ExactText(limit="MEMORY_MAX_QUERY_BYTES")
    top_k = ExactInteger(min_value=1, max_value=MAX_TOP_K, default=DEFAULT_TOP_K)
    source = ExactText(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True)  # type: ignore[assignment]
    doc_id = ExactText(limit=MAX_DOC_ID_BYTES, required=False)
    created_after = ExactTime(required=False, help_text="Stored at this time or later.")
    created_before = ExactTime(required=False, help_text="Stored before this time.")
    metadata = MetadataFilter(required=False, help_text="What filterable metadata keys must equal, or contain.")
    embedding = Embedding(required=False, help_text="Of `query`; the service embeds it when left out.")
    explain = ExactBoolean(default=False, help_text="Add the parts of each score.")
    rerank = ExactBoolean(default=True, help_text="Let the cross-encoder reorder what was found.")


class ListInput(StrictSerializer):
    """Query parameters of a listing."""

    source = ExactText(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True)  # type: ignore[assignment]
    doc_id = ExactText(limit=MAX_DOC_ID_BYTES, required=False)
    cursor = serializers.CharField(required=False, help_text="`next_cursor` of the page before.")
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=DEFAULT_PAGE)

    def validate_cursor(self, cursor: str) -> uuid.UUID:
        return decode_cursor(cursor)


class DocumentAddress(StrictSerializer):
    doc_id = ExactText(limit=MAX_DOC_ID_BYTES)


class NoParameters(StrictSerializer):
    """For requests that take none: a filter that would be ignored is refused instead."""


# --- Out ---

LEFT_OUT = "Rows left out because their seal did not open."


class IndexedDocumentOutput(serializers.Serializer[Any]):
    doc_id = serializers.CharField()
    chunk_ids = serializers.ListField(child=serializers.UUIDField(), help_text="In the document's order.")
    replaced = serializers.IntegerField(help_text="Chunks of an earlier version that this one replaced.")


class IndexOutput(serializers.Serializer[Any]):
    documents = IndexedDocumentOutput(many=True)


class ChunkOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    doc_id = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    chunk_index = serializers.IntegerField()
    text = serializers.CharField()
    metadata = serializers.DictField(child=serializers.JSONField())
    created_at = serializers.DateTimeField()


class ExplanationOutput(serializers.Serializer[Any]):
    dense = serializers.FloatField(help_text="Cosine, -1 to 1.")
    lexical = serializers.FloatField(help_text="Keyword score as a share of the best row's, 0 to 1.")
    neighbours = serializers.FloatField(help_text="Mean score of the chunks before and after.")


class MatchOutput(ChunkOutput):
    score = serializers.FloatField(allow_null=True, help_text="The cross-encoder's, raw; null when it was skipped.")
    retrieval_score = serializers.FloatField()
    explanation = ExplanationOutput(required=False, allow_null=True, help_text="Only when asked to explain.")


class QueryOutput(serializers.Serializer[Any]):
    matches = MatchOutput(many=True)
    reranked = serializers.BooleanField(help_text="Whether the order is the cross-encoder's.")
    skip_reason = serializers.ChoiceField(
        choices=[reason.value for reason in SkipReason], allow_null=True, help_text="Why it is not."
    )
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)
    timings_ms = serializers.DictField(child=serializers.FloatField())


class PageOutput(serializers.Serializer[Any]):
    memories = ChunkOutput(many=True, source="chunks")
    next_cursor = serializers.SerializerMethodField(help_text="Null on the last page.")
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)

    def get_next_cursor(self, page: Page) -> str | None:
        return encode_cursor(page.next_after)


class DeletedOutput(serializers.Serializer[Any]):
    deleted = serializers.IntegerField(help_text="Chunks deleted.")


class ErasureOutput(serializers.Serializer[Any]):
    deleted = serializers.DictField(child=serializers.IntegerField(), help_text="Rows deleted, by table.")
    remaining = serializers.DictField(child=serializers.IntegerField(), help_text="Rows left in live tables.")
    note = serializers.CharField()
