"""What the tools take, and what they give where the API has no shape for it."""

from typing import Any
from uuid import UUID

from rest_framework import serializers

from memory.api.serializers import DEFAULT_PAGE, DEFAULT_TOP_K, MAX_PAGE, Cursor, Filter
from memory.documents.fields import (
    ExactBoolean,
    ExactInteger,
    ExactLine,
    ExactText,
    ExactTime,
    Metadata,
    StrictSerializer,
)
from memory.documents.shape import MAX_DOC_ID_BYTES, MAX_SOURCE_BYTES, MAX_TITLE_BYTES
from memory.exceptions import InvalidFilter

MAX_TOP_K = 50


class Filters(Filter):
    """The API's filter, under the name that agents know: what is wrong with it is said of this argument."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            return super().to_internal_value(data)
        except InvalidFilter as refused:
            raise serializers.ValidationError(str(refused)) from None


class AddInput(StrictSerializer):
    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES", help_text="What to remember.")
    id = ExactLine(limit=MAX_DOC_ID_BYTES, required=False, help_text="A name of yours; made up when left out.")
    source = ExactLine(  # type: ignore[assignment]
        limit=MAX_SOURCE_BYTES, required=False, help_text="Where it is from, such as chat or mail."
    )
    metadata = Metadata(required=False)
    title = ExactLine(limit=MAX_TITLE_BYTES, required=False, help_text="What it belongs to, such as a meeting.")
    occurred_at = ExactTime(required=False, help_text="The time it is about, where that is not now.")
    expires_at = ExactTime(required=False, help_text="From then on it is forgotten.")


class SearchInput(StrictSerializer):
    query = ExactText(limit="MEMORY_MAX_QUERY_BYTES", help_text="A question, or what to look for.")
    top_k = ExactInteger(min_value=1, max_value=MAX_TOP_K, default=DEFAULT_TOP_K)
    filters = Filters(required=False)
    occurred_after = ExactTime(required=False, help_text="About this time or later; stored, where none is told.")
    occurred_before = ExactTime(required=False, help_text="About a time before this; stored, where none is told.")


class ListInput(StrictSerializer):
    limit = ExactInteger(min_value=1, max_value=MAX_PAGE, default=DEFAULT_PAGE)
    cursor = Cursor(required=False, help_text="`next_cursor` of the page before.")
    filters = Filters(required=False)
    source = ExactText(limit=MAX_SOURCE_BYTES, required=False)  # type: ignore[assignment]
    occurred_after = ExactTime(required=False, help_text="About this time or later; stored, where none is told.")
    occurred_before = ExactTime(required=False, help_text="About a time before this; stored, where none is told.")

    def validate_cursor(self, place: Any) -> Any:
        if not isinstance(place, UUID):
            raise serializers.ValidationError("This is not a cursor of this list.")
        return place


class MemoryInput(StrictSerializer):
    memory_id = serializers.UUIDField()


class UpdateInput(MemoryInput):
    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES", required=False, help_text="In place of the present text.")
    metadata = Metadata(required=False, help_text="Merged into what is there; null takes a key away.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) == 1:
            raise serializers.ValidationError({"text": "Give text, metadata or both."})
        return attrs


class DeleteAllInput(StrictSerializer):
    confirm = ExactBoolean(help_text="true")

    def validate_confirm(self, value: bool) -> bool:
        if not value:
            raise serializers.ValidationError("Nothing was deleted: this must be true.")
        return value


class ConnectorSearchInput(StrictSerializer):
    query = ExactText(limit="MEMORY_MAX_QUERY_BYTES")


class ConnectorFetchInput(StrictSerializer):
    id = serializers.UUIDField()


class AddedOutput(serializers.Serializer[Any]):
    id = serializers.CharField(help_text="The document's name.")
    memory_ids = serializers.ListField(child=serializers.UUIDField(), help_text="Of its pieces, in order.")
    replaced = serializers.IntegerField(help_text="Memories that stood under the id before.")


class ConnectorResultOutput(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    title = serializers.CharField()
    url = serializers.CharField()


class ConnectorSearchOutput(serializers.Serializer[Any]):
    results = ConnectorResultOutput(many=True)


class ConnectorFetchOutput(ConnectorResultOutput):
    text = serializers.CharField()
    metadata = serializers.DictField(child=serializers.JSONField())
