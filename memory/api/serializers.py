"""The shapes of queries, parameters and answers. Those of documents are in `memory.documents.shape`."""

import dataclasses
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from memory.api.pagination import decode_cursor, decode_place, encode_cursor, encode_place
from memory.documents.fields import (
    BoundedList,
    Embedding,
    ExactBoolean,
    ExactId,
    ExactInteger,
    ExactText,
    ExactTime,
    MetadataFilter,
    StrictSerializer,
)
from memory.documents.shape import MAX_DOC_ID_BYTES, MAX_SOURCE_BYTES
from memory.documents.strict_json import strict_json
from memory.exceptions import InvalidFilter, InvalidJSON, NoEmbedding
from memory.listing import Page, Sort, TimePlace
from memory.search.conditions import parse_filter
from memory.search.filters import Scope
from memory.search.matches import Match
from memory.search.retrieval import QueryResult
from rerank import SkipReason
from rerank.ordering import FUSIONS

MAX_TOP_K = 100
DEFAULT_TOP_K = 10
MAX_CONTEXT = 10
MAX_PAGE = 100
DEFAULT_PAGE = 50


# --- In ---


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": True,
        "description": (
            "Members that must all hold: `AND` and `OR` with a list of filters, `NOT` with one, or a field (`source`,"
            " `doc_id`, `metadata.<key>`, `created_at`, `occurred_at`) with a value or with operators: `eq`, `ne`,"
            " `in`, `exists`; for times `gt`, `gte`, `lt`, `lte`."
        ),
        "example": {"OR": [{"source": "chat"}, {"metadata.kind": {"in": ["note", "plan"]}}]},
    }
)
class Filter(serializers.Field[Any, Any, Any, Any]):
    """A filter; what it does not support is refused by name (`memory.search.conditions`)."""

    def to_internal_value(self, data: Any) -> Any:
        return parse_filter(data)


@extend_schema_field({"type": "string", "example": '{"source": "chat"}'})
class FilterText(Filter):
    """A filter in a query string: as JSON text."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            value = strict_json(data.encode("utf-8", "surrogatepass"))
        except InvalidJSON:
            raise InvalidFilter("filter", "This must be JSON.") from None
        return super().to_internal_value(value)


class QueryInput(StrictSerializer):
    query = ExactText(limit="MEMORY_MAX_QUERY_BYTES")
    top_k = ExactInteger(min_value=1, max_value=MAX_TOP_K, default=DEFAULT_TOP_K)
    source = ExactText(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True)  # type: ignore[assignment]
    doc_id = ExactText(limit=MAX_DOC_ID_BYTES, required=False)
    created_after = ExactTime(required=False, help_text="Stored at this time or later.")
    created_before = ExactTime(required=False, help_text="Stored before this time.")
    occurred_after = ExactTime(required=False, help_text="About this time or later; stored, where none is told.")
    occurred_before = ExactTime(required=False, help_text="About a time before this; stored, where none is told.")
    metadata = MetadataFilter(required=False, help_text="What filterable metadata keys must equal, or contain.")
    filter = Filter(required=False)
    embedding = Embedding(required=False, help_text="Of `query`; the service embeds it when left out.")
    asked_at = ExactTime(required=False, help_text="When it is asked, now by default: what `last week` means.")
    explain = ExactBoolean(default=False, help_text="Add the parts of each score.")
    rerank = ExactBoolean(default=True, help_text="Let the cross-encoder reorder what was found.")
    context = ExactInteger(  # type: ignore[assignment]
        min_value=0, max_value=MAX_CONTEXT, default=0, help_text="Add so many chunks before and after each match."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        narrowing = {part.name: attrs.pop(part.name) for part in dataclasses.fields(Scope) if part.name in attrs}
        return {**attrs, "scope": Scope(**narrowing)}


@extend_schema_field({"type": "string", "pattern": "^([A-Za-z0-9_-]{21}[AQgw]|[A-Za-z0-9_-]{32})$"})
class Cursor(serializers.CharField):
    def to_internal_value(self, data: Any) -> Any:
        return decode_cursor(super().to_internal_value(data))


class ListInput(StrictSerializer):
    """Query parameters of a listing."""

    source = ExactText(limit=MAX_SOURCE_BYTES, required=False, allow_blank=True)  # type: ignore[assignment]
    doc_id = ExactText(limit=MAX_DOC_ID_BYTES, required=False)
    occurred_after = ExactTime(required=False, help_text="About this time or later; stored, where none is told.")
    occurred_before = ExactTime(required=False, help_text="About a time before this; stored, where none is told.")
    filter = FilterText(required=False, help_text="As in a query, as JSON text.")
    sort = serializers.ChoiceField(
        choices=[sort.value for sort in Sort],
        default=Sort.CREATED.value,
        help_text="Newest first, or by the time that memories are about (stored, where none is told).",
    )
    cursor = Cursor(required=False, help_text="`next_cursor` of the page before, in the same order.")
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=DEFAULT_PAGE)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        sort = Sort(attrs["sort"])
        if "cursor" in attrs and isinstance(attrs["cursor"], UUID) != (sort is Sort.CREATED):
            raise serializers.ValidationError({"cursor": "This is a cursor of another order."})
        return {**attrs, "sort": sort}


@extend_schema_field({"type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"})
class PlaceCursor(serializers.CharField):
    def to_internal_value(self, data: Any) -> Any:
        return decode_place(super().to_internal_value(data))


class DocumentPageInput(StrictSerializer):
    """Query parameters of a document's pages."""

    cursor = PlaceCursor(required=False, help_text="`next_cursor` of the page before.")
    limit = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=DEFAULT_PAGE)


@extend_schema_field({"type": "boolean"})
class QueryBoolean(serializers.Field[bool, Any, Any, Any]):
    """true or false in a query string, and nothing else."""

    default_error_messages = {"invalid": "This must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if data not in ("true", "false"):
            self.fail("invalid")
        return bool(data == "true")

    def to_representation(self, value: Any) -> Any:
        return value


class ExportInput(StrictSerializer):
    """Query parameters of an export."""

    embeddings = QueryBoolean(default=False, help_text="With the embeddings, so that an import need not make them.")


class IdsInput(StrictSerializer):
    ids = BoundedList(child=ExactId(), limit="MEMORY_MAX_BATCH", help_text="Up to MEMORY_MAX_BATCH of them.")


class DocumentAddress(StrictSerializer):
    # Blank or with line breaks, as older versions stored it: whatever is stored can be deleted.
    doc_id = ExactText(limit=MAX_DOC_ID_BYTES, allow_blank=True)


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


@extend_schema_field({"type": "string", "format": "date-time"})
def local_time_text(value: datetime) -> str:
    """ISO 8601, UTC as Z."""
    return value.isoformat().removesuffix("+00:00") + "Z" if not value.utcoffset() else value.isoformat()


@extend_schema_field(OpenApiTypes.DATETIME)
class LocalTime(serializers.Field[Any, Any, Any, Any]):
    """A time in its own zone; DRF's field would turn it into the server's."""

    def to_representation(self, value: datetime) -> str:
        return local_time_text(value)


class ChunkOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    doc_id = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]
    chunk_index = serializers.IntegerField()
    text = serializers.CharField()
    metadata = serializers.DictField(child=serializers.JSONField())
    title = serializers.CharField()
    author = serializers.CharField()
    occurred_at = LocalTime(allow_null=True, help_text="The time it is about, in the zone in which it was given.")
    expires_at = serializers.DateTimeField(allow_null=True, help_text="From then on it is in no answer.")
    created_at = serializers.DateTimeField()


class ExplanationOutput(serializers.Serializer[Any]):
    dense = serializers.FloatField(help_text="Cosine, -1 to 1.")
    lexical = serializers.FloatField(help_text="Keyword score as a share of the best row's, 0 to 1.")
    neighbours = serializers.FloatField(help_text="Mean score of the chunks before and after.")
    time = serializers.FloatField(help_text="Added because it happened when the question says.")


class SurroundingsOutput(serializers.Serializer[Any]):
    before = ChunkOutput(many=True)
    after = ChunkOutput(many=True)


class MatchOutput(ChunkOutput):
    score = serializers.FloatField(allow_null=True, help_text="The cross-encoder's, raw; null where it gave none.")
    retrieval_score = serializers.FloatField()
    explanation = ExplanationOutput(required=False, allow_null=True, help_text="Only when asked to explain.")
    context = SurroundingsOutput(  # type: ignore[assignment]
        required=False, allow_null=True, help_text="Only when asked for: the chunks around it, in the document's order."
    )


class RerankerOutput(serializers.Serializer[Any]):
    model = serializers.CharField(help_text="The cross-encoder that scored the matches.")
    fusion = serializers.ChoiceField(
        choices=FUSIONS, help_text="Whether its order replaced that of retrieval, or how both were fused."
    )


class QueryOutput(serializers.Serializer[Any]):
    """The fields describe the answer; it is written by hand, in a tenth of the time, and a test compares the two."""

    matches = MatchOutput(many=True)
    reranked = serializers.BooleanField(help_text="Whether a cross-encoder had a say in the order.")
    reranker = RerankerOutput(allow_null=True, help_text="Who had a say in the order, and how; null when nobody.")
    skip_reason = serializers.ChoiceField(
        choices=[reason.value for reason in SkipReason], allow_null=True, help_text="Why it is not."
    )
    degraded = serializers.ChoiceField(
        choices=[reason.value for reason in NoEmbedding],
        allow_null=True,
        help_text="Why the query was not embedded, so that keywords alone have found these; null when it was.",
    )
    truncated = serializers.BooleanField(help_text="Whether there would be more, had the answer room for its bytes.")
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)
    timings_ms = serializers.DictField(child=serializers.FloatField())

    def to_representation(self, instance: QueryResult) -> dict[str, Any]:
        reranker = instance.reranker
        return {
            "matches": [_match(match) for match in instance.matches],
            "reranked": instance.reranked,
            "reranker": reranker and {"model": reranker.model, "fusion": reranker.fusion},
            "skip_reason": instance.skip_reason and instance.skip_reason.value,
            "degraded": instance.degraded and instance.degraded.value,
            "truncated": instance.truncated,
            "integrity_failures": instance.integrity_failures,
            "timings_ms": dict(instance.timings_ms),
        }


def _match(match: Match) -> dict[str, Any]:
    return {
        "id": str(match.id),
        "doc_id": match.doc_id,
        "source": match.source,
        "chunk_index": match.chunk_index,
        "text": match.text,
        "metadata": match.metadata,
        "title": match.title,
        "author": match.author,
        "occurred_at": match.occurred_at and local_time_text(match.occurred_at),
        "expires_at": match.expires_at and local_time_text(match.expires_at.astimezone(UTC)),
        "created_at": local_time_text(match.created_at.astimezone(UTC)),
        "score": match.score,
        "retrieval_score": match.retrieval_score,
        "explanation": match.explanation and ExplanationOutput(match.explanation).data,
        "context": match.context and SurroundingsOutput(match.context).data,
    }


class PageOutput(serializers.Serializer[Any]):
    memories = ChunkOutput(many=True, source="chunks")
    next_cursor = serializers.SerializerMethodField(help_text="Null on the last page, and only there.")
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)

    def get_next_cursor(self, page: Page[UUID | TimePlace]) -> str | None:
        return encode_cursor(page.next_after)


class DocumentPageOutput(serializers.Serializer[Any]):
    doc_id = serializers.CharField()
    chunks = ChunkOutput(many=True, help_text="In the document's order.")
    next_cursor = serializers.SerializerMethodField(help_text="Null on the last page, and only there.")
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)

    def get_next_cursor(self, page: Any) -> str | None:
        return encode_place(page["next_after"])


class FoundOutput(serializers.Serializer[Any]):
    memories = ChunkOutput(many=True, source="chunks", help_text="In the order of `ids`.")
    missing = serializers.ListField(child=serializers.UUIDField(), help_text="Ids of nothing of yours.")
    left_out = serializers.ListField(
        child=serializers.UUIDField(), help_text="Ids of memories for which this answer has no room: ask again."
    )
    integrity_failures = serializers.IntegerField(help_text=LEFT_OUT)


class PatchedDocumentOutput(serializers.Serializer[Any]):
    doc_id = serializers.CharField()
    chunk_ids = serializers.ListField(child=serializers.UUIDField(), help_text="In the document's order.")
    embedded = serializers.IntegerField(help_text="Texts that were embedded: those that are new.")


class DeletedOutput(serializers.Serializer[Any]):
    deleted = serializers.IntegerField(help_text="Chunks deleted.")


class ErasureOutput(serializers.Serializer[Any]):
    deleted = serializers.DictField(child=serializers.IntegerField(), help_text="Rows deleted, by table.")
    remaining = serializers.DictField(child=serializers.IntegerField(), help_text="Rows left in live tables.")
    note = serializers.CharField()
