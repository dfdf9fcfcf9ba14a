"""What mem0's calls take. What has no counterpart here is refused by a sentence, not ignored.

Three things are taken and have no effect, because they ask for what holds anyway: `infer` and `async_mode` (a text is
stored as it is, before the answer), and the names of answers' forms, of which there is one.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from memory.api.mem0.filters import ENTITIES, FIELDS
from memory.api.serializers import DEFAULT_TOP_K, MAX_PAGE, MAX_TOP_K
from memory.documents.fields import (
    BoundedList,
    ExactBoolean,
    ExactInteger,
    ExactLine,
    ExactText,
    Metadata,
    StrictSerializer,
)
from memory.documents.shape import MAX_AUTHOR_BYTES
from memory.index.context import is_storable_time

ROLES: Final = ("user", "assistant", "tool", "system")
MAX_ENTITY_BYTES: Final = 255
VERBATIM: Final = "Not served: texts are stored as they are, no language model reads them."
NO_CATEGORIES: Final = "Not served: memories have no categories."
EXPIRED_ARE_GONE: Final = "Not served: what has expired is in no answer."
RESERVED: Final = "Give this beside metadata, not in it."


# --- Fields ---


@extend_schema_field({"not": {}})
class Unserved(serializers.Field[Any, Any, Any, Any]):
    """A field of mem0's that nothing here could follow: refused whatever it holds, with a sentence."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        super().__init__(required=False, allow_null=True)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        if data is serializers.empty:
            return super().run_validation(data)
        raise serializers.ValidationError(self.sentence)


class Only(ExactBoolean):
    """A boolean of which one value holds anyway, and the other is refused with a sentence."""

    def __init__(self, value: bool, sentence: str) -> None:
        self.value, self.sentence = value, sentence
        super().__init__(required=False)

    def to_internal_value(self, data: Any) -> bool:
        if super().to_internal_value(data) is not self.value:
            raise serializers.ValidationError(self.sentence)
        return self.value


@extend_schema_field(
    {"oneOf": [{"type": "number"}, {"type": "string"}], "description": "Seconds since 1970; or a date or time, in UTC."}
)
class Moment(serializers.Field[Any, Any, Any, Any]):
    """Unix seconds, or ISO 8601; without an offset it is UTC, as at mem0."""

    default_error_messages = {"invalid": "This must be seconds since 1970, or an ISO 8601 date or time."}

    def to_internal_value(self, data: Any) -> datetime:
        time = self._read(data)
        if time is not None and time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        if time is None or not is_storable_time(time):
            self.fail("invalid")
        return time

    @staticmethod
    def _read(data: Any) -> datetime | None:
        try:
            if type(data) in (int, float):
                return datetime.fromtimestamp(data, UTC)
            return datetime.fromisoformat(data) if isinstance(data, str) else None
        except (ValueError, OverflowError, OSError):
            return None

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field({"type": "string", "format": "date"})
class LastDay(serializers.Field[Any, Any, Any, Any]):
    """`YYYY-MM-DD`, the last day of a memory (UTC): it expires as that day ends."""

    default_error_messages = {"invalid": "This must be a date: YYYY-MM-DD."}

    def to_internal_value(self, data: Any) -> datetime:
        try:
            day = date.fromisoformat(data) if isinstance(data, str) else None
            if day is not None:
                return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        except (ValueError, OverflowError):
            pass
        self.fail("invalid")

    def to_representation(self, value: Any) -> Any:
        return value


@extend_schema_field(
    {
        "type": "object",
        "additionalProperties": True,
        "description": f"mem0's filters: {', '.join(FIELDS)}; what else it holds is refused by name.",
        "example": {"AND": [{"user_id": "alice"}, {"run_id": "*"}, {"created_at": {"gte": "2026-01-01"}}]},
    }
)
class Filters(serializers.Field[Any, Any, Any, Any]):
    """Read by `memory.api.mem0.filters`, together with what stands beside it."""

    def to_internal_value(self, data: Any) -> Any:
        return data


class OwnMetadata(Metadata):
    """Metadata without the keys that have fields of their own."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        metadata = super().to_internal_value(data)
        if reserved := [name for name in ENTITIES if name in metadata]:
            raise serializers.ValidationError({name: [RESERVED] for name in reserved})
        return metadata


def _entity(about: str) -> ExactText:
    return ExactText(limit=MAX_ENTITY_BYTES, required=False, help_text=about)


def _form(*choices: str) -> serializers.ChoiceField:
    return serializers.ChoiceField(choices=choices, required=False, help_text="Without effect: there is one form.")


# --- Calls ---


class Mem0EntitiesInput(StrictSerializer):
    """Whose memories, and of which agent, app or run. How a user may be called is checked where the name is read."""

    user_id = serializers.CharField(required=False, trim_whitespace=False, allow_blank=True, help_text="The user.")
    agent_id = _entity("A label.")
    app_id = _entity("A label.")
    run_id = _entity("A label.")

    def to_internal_value(self, data: Any) -> Any:
        # CharField takes numbers for strings.
        if isinstance(data, dict) and not isinstance(data.get("user_id", ""), str):
            raise serializers.ValidationError({"user_id": ["This must be a string."]})
        return super().to_internal_value(data)


class Mem0ScopedInput(Mem0EntitiesInput):
    """The user and the labels may also stand in `filters`, where mem0's client puts them."""

    filters = Filters(required=False)
    version = _form("v1", "v2", "v3")
    output_format = _form("v1.1")


class Mem0MessageInput(StrictSerializer):
    role = serializers.ChoiceField(choices=ROLES, default="user", help_text="`system` is not stored.")
    content = ExactText(limit="MEMORY_MAX_TEXT_BYTES")
    name = ExactLine(limit=MAX_AUTHOR_BYTES, required=False, help_text="Who said it.")


class Mem0AddInput(Mem0ScopedInput):
    messages = BoundedList(child=Mem0MessageInput(), limit="MEMORY_MAX_CHUNKS")
    metadata = OwnMetadata(required=False)
    timestamp = Moment(required=False, help_text="The time it is about.")
    expiration_date = LastDay(required=False, help_text="Its last day, in UTC.")
    infer = ExactBoolean(required=False, help_text="Without effect: texts are stored as they are.")
    async_mode = ExactBoolean(required=False, help_text="Without effect: it is stored when the answer comes.")
    enable_graph = Only(False, "Not served: there is no graph of entities.")
    custom_categories = Unserved(NO_CATEGORIES)
    custom_instructions = Unserved(VERBATIM)
    agent_custom_instructions = Unserved(VERBATIM)
    structured_data_schema = Unserved(VERBATIM)
    includes = Unserved(VERBATIM)
    excludes = Unserved(VERBATIM)
    immutable = Only(False, "Not served: every memory can be changed.")


class Mem0SearchInput(Mem0ScopedInput):
    query = ExactText(limit="MEMORY_MAX_QUERY_BYTES")
    top_k = ExactInteger(min_value=1, max_value=MAX_TOP_K, default=DEFAULT_TOP_K)
    rerank = ExactBoolean(required=False, help_text="Let the cross-encoder order what was found; true by default.")
    threshold = serializers.FloatField(min_value=0, max_value=1, required=False, help_text="The least score.")
    reference_date = Moment(required=False, help_text="When it is asked: what `last week` means.")
    latest_only = ExactBoolean(required=False, help_text="Without effect: there are no former versions.")
    keyword_search = Only(True, "Not served: every search also goes by keywords.")
    show_expired = Only(False, EXPIRED_ARE_GONE)
    categories = Unserved(NO_CATEGORIES)
    metadata = Unserved("Not served here: put it into filters.")
    fields = Unserved("Not served: answers have all fields.")  # type: ignore[assignment]


class Mem0ListInput(Mem0ScopedInput):
    start_date = Moment(required=False, help_text="Stored at this time or later.")
    end_date = Moment(required=False, help_text="Stored at this time or before.")
    latest_only = ExactBoolean(required=False, help_text="Without effect: there are no former versions.")
    show_expired = Only(False, EXPIRED_ARE_GONE)
    categories = Unserved(NO_CATEGORIES)
    fields = Unserved("Not served: answers have all fields.")  # type: ignore[assignment]


class Mem0PageInput(StrictSerializer):
    """Query parameters of a list."""

    page = serializers.IntegerField(min_value=1, max_value=100_000, default=1)
    page_size = serializers.IntegerField(min_value=1, max_value=MAX_PAGE, default=MAX_PAGE)


class Mem0DeleteInput(StrictSerializer):
    """Query parameters of the deletion of one memory."""

    delete_linked = serializers.ChoiceField(
        choices=["true", "false"], required=False, help_text="Without effect: no memory supersedes another."
    )


class Mem0UpdateInput(StrictSerializer):
    """What changes of one memory; what is not named stays."""

    text = ExactText(limit="MEMORY_MAX_TEXT_BYTES", required=False)
    metadata = OwnMetadata(required=False, help_text="Merged into what is there; null takes a key away.")
    timestamp = Moment(required=False, help_text="The time it is about.")
    expiration_date = LastDay(required=False, allow_null=True, help_text="Its last day, in UTC; null for none.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not attrs.keys() - {"memory_id"}:
            raise serializers.ValidationError({"text": "Give text, metadata, timestamp or expiration_date."})
        return attrs


class Mem0BatchUpdateItem(Mem0UpdateInput):
    memory_id = serializers.CharField(trim_whitespace=False)


class Mem0BatchUpdateInput(StrictSerializer):
    memories = BoundedList(child=Mem0BatchUpdateItem(), limit="MEMORY_MAX_BATCH", help_text="All of one user.")


class Mem0BatchDeleteItem(StrictSerializer):
    memory_id = serializers.CharField(trim_whitespace=False)


class Mem0BatchDeleteInput(StrictSerializer):
    memories = BoundedList(child=Mem0BatchDeleteItem(), limit="MEMORY_MAX_BATCH", help_text="All of one user.")
